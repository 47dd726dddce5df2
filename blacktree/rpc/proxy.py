"""The two sides as their callers see them, over anything that carries one unary call."""

from collections.abc import Sequence
from typing import Any, Protocol

from google.protobuf.message import Message

from blacktree.rpc import codec, replica_codec
from blacktree.rpc.generated.v1 import orchestrator_pb2, replica_pb2, worker_pb2
from blacktree.rpc.peer import (
    Admission,
    Answer,
    Assignment,
    PingAnswer,
    Registration,
    Report,
    ReportAnswer,
    StopAnswer,
    StopOrder,
)
from blacktree.rpc.replica import ReplicaAck, ReplicaAnswer, ReplicaOrders, ReplicaReport


class Link(Protocol):
    """One unary call; raises what the other side raised, or `PeerLost`."""

    async def call(self, path: str, request: Message, reply: type[Any]) -> Any: ...


class WorkerProxy:
    """`WorkerSide`, over the wire."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def run_jobs(self, assignments: Sequence[Assignment]) -> list[Answer]:
        """As promised; more than fits in one message goes in several calls."""
        answers: list[Answer] = []
        for request in codec.run_requests(assignments):
            reply = await self._link.call("/blacktree.v1.WorkerService/RunJob", request, worker_pb2.RunJobReply)
            answers += codec.answers_from_wire(reply, len(request.assignments))
        return answers

    async def stop_jobs(self, orders: Sequence[StopOrder]) -> list[StopAnswer]:
        request = codec.orders_to_wire(orders)
        reply = await self._link.call("/blacktree.v1.WorkerService/StopJob", request, worker_pb2.StopJobReply)
        return codec.stop_answers_from_wire(reply, len(orders))

    async def ping(self) -> PingAnswer:
        request = worker_pb2.PingRequest()
        return codec.ping_from_wire(
            await self._link.call("/blacktree.v1.WorkerService/Ping", request, worker_pb2.PingReply)
        )

    async def apply_replicas(self, orders: ReplicaOrders) -> ReplicaAck:
        request = replica_codec.orders_to_wire(orders)
        reply = replica_pb2.ReplicaOrdersReply
        return replica_codec.ack_from_wire(
            await self._link.call("/blacktree.v1.WorkerService/ApplyReplicas", request, reply)
        )


class OrchestratorProxy:
    """`OrchestratorSide`, over the wire."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def register(self, registration: Registration) -> Admission:
        request = codec.registration_to_wire(registration)
        reply = orchestrator_pb2.RegisterReply
        return codec.admission_from_wire(
            await self._link.call("/blacktree.v1.OrchestratorService/Register", request, reply)
        )

    async def report(self, report: Report) -> ReportAnswer:
        request = codec.report_to_wire(report)
        reply = orchestrator_pb2.ReportReply
        return codec.report_answer_from_wire(
            await self._link.call("/blacktree.v1.OrchestratorService/Report", request, reply)
        )

    async def leave(self, worker_id: str, incarnation: str) -> None:
        request = codec.leave_to_wire(worker_id, incarnation)
        await self._link.call("/blacktree.v1.OrchestratorService/Leave", request, orchestrator_pb2.LeaveReply)

    async def report_replicas(self, report: ReplicaReport) -> ReplicaAnswer:
        request = replica_codec.report_to_wire(report)
        reply = replica_pb2.ReplicaReportReply
        return replica_codec.answer_from_wire(
            await self._link.call("/blacktree.v1.OrchestratorService/ReportReplicas", request, reply)
        )
