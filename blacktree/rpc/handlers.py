"""The calls of each side: path → request type and Trio handler, from message to message."""

from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.message import Message

from blacktree.rpc import codec, replica_codec
from blacktree.rpc.generated.v1 import orchestrator_pb2, replica_pb2, worker_pb2
from blacktree.rpc.peer import Answer, Assignment, OrchestratorSide, WorkerSide

Call = tuple[type[Message], Callable[[Any], Awaitable[Message]]]


def orchestrator_calls(side: OrchestratorSide) -> dict[str, Call]:
    """OrchestratorService."""

    async def register(request: Any) -> Message:
        return codec.admission_to_wire(await side.register(codec.registration_from_wire(request)))

    async def report(request: Any) -> Message:
        return codec.report_answer_to_wire(await side.report(codec.report_from_wire(request)))

    async def leave(request: Any) -> Message:
        await side.leave(*codec.leave_from_wire(request))
        return orchestrator_pb2.LeaveReply()

    async def report_replicas(request: Any) -> Message:
        return replica_codec.answer_to_wire(await side.report_replicas(replica_codec.report_from_wire(request)))

    return {
        "/blacktree.v1.OrchestratorService/Register": (orchestrator_pb2.RegisterRequest, register),
        "/blacktree.v1.OrchestratorService/Report": (orchestrator_pb2.ReportRequest, report),
        "/blacktree.v1.OrchestratorService/Leave": (orchestrator_pb2.LeaveRequest, leave),
        "/blacktree.v1.OrchestratorService/ReportReplicas": (replica_pb2.ReplicaReportRequest, report_replicas),
    }


def worker_calls(side: WorkerSide) -> dict[str, Call]:
    """WorkerService."""

    async def run_job(request: Any) -> Message:
        read = codec.assignments_from_wire(request)
        answers = iter(await side.run_jobs([each for each in read if isinstance(each, Assignment)]))
        return codec.answers_to_wire(
            [
                next(answers)
                if isinstance(each, Assignment)
                else Answer(accepted=False, code=each.code, reason=each.message)
                for each in read
            ]
        )

    async def stop_job(request: Any) -> Message:
        return codec.stop_answers_to_wire(await side.stop_jobs(codec.orders_from_wire(request)))

    async def ping(request: Any) -> Message:
        return codec.ping_to_wire(await side.ping())

    async def apply_replicas(request: Any) -> Message:
        return replica_codec.ack_to_wire(await side.apply_replicas(replica_codec.orders_from_wire(request)))

    return {
        "/blacktree.v1.WorkerService/RunJob": (worker_pb2.RunJobRequest, run_job),
        "/blacktree.v1.WorkerService/StopJob": (worker_pb2.StopJobRequest, stop_job),
        "/blacktree.v1.WorkerService/Ping": (worker_pb2.PingRequest, ping),
        "/blacktree.v1.WorkerService/ApplyReplicas": (replica_pb2.ReplicaOrdersRequest, apply_replicas),
    }
