"""protobuf ⇄ the words of `blacktree.rpc.peer`: total and strict; the only file that knows both.

`x_to_wire` makes a message, `x_from_wire` reads one. Reading raises `BadRequest` for whatever is not in order, and
nothing else, so that no peer can end a daemon. Counts are limited before anything is built from them: an empty
sub-message takes two bytes on the wire and hundreds here.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from blacktree.errors import BadRequest, BlacktreeError, TooLarge
from blacktree.rpc.checks import MAX_ITEMS, commit, count, few, given, job_id, refused, seconds, text, word, worker_id
from blacktree.rpc.generated.v1 import job_pb2, orchestrator_pb2, worker_pb2
from blacktree.rpc.peer import (
    MAX_MESSAGE_BYTES,
    Admission,
    Answer,
    Assignment,
    AttemptName,
    AttemptReport,
    Batch,
    PartImage,
    PingAnswer,
    Registration,
    Report,
    ReportAnswer,
    StopAnswer,
    StopOrder,
    Verdict,
    WorkerStatus,
)
from blacktree.rpc.records import outcome_from_wire, outcome_to_wire, record_from_wire, record_to_wire
from blacktree.rpc.replica_codec import logins_from_wire, logins_to_wire
from blacktree.spec import JobSpec, checked
from blacktree.strict import decode_json

MAX_RECORDS = 65_536
MAX_LABELS = 256
MAX_CAPABILITIES = 64
MAX_NAMES = 64
MAX_NAME = 1024
STOP_WORDS = frozenset({"canceled", "timed_out", "shutdown", "fenced"})

_encode_spec = msgspec.json.Encoder().encode


def name_to_wire(name: AttemptName) -> job_pb2.AttemptName:
    return job_pb2.AttemptName(job_id=name.job_id, attempt=name.attempt, token=name.token)


def name_from_wire(wire: job_pb2.AttemptName) -> AttemptName:
    return AttemptName(
        job_id=job_id(wire.job_id),
        attempt=count(wire.attempt, "name.attempt", 1),
        token=given(wire.token, "name.token"),
    )


def assignment_to_wire(assignment: Assignment) -> worker_pb2.Assignment:
    return worker_pb2.Assignment(
        name=name_to_wire(assignment.name),
        spec_json=_encode_spec(assignment.spec),
        commit=assignment.commit,
        allow_local_sources=assignment.allow_local_sources,
        secrets=assignment.secrets,
        clone_token=assignment.clone_token,
        untrusted=not assignment.trusted,
        cache_from=assignment.cache_from,
        part=assignment.part,
        parts=[
            worker_pb2.PartImage(platform=each.platform, digest=each.digest, tag=each.tag) for each in assignment.parts
        ],
        logins=logins_to_wire(assignment.logins),
        traceparent=assignment.traceparent,
    )


def assignment_from_wire(wire: worker_pb2.Assignment) -> Assignment:
    # Not `parse_spec`: its limit is on what was submitted, and the stored form, with all defaults, is a little longer.
    return Assignment(
        name=name_from_wire(wire.name),
        spec=checked(decode_json(wire.spec_json, JobSpec, where="spec")),
        commit=commit(wire.commit) if wire.HasField("commit") else None,
        allow_local_sources=wire.allow_local_sources,
        secrets={text(key, "secrets", 256): wire.secrets[key] for key in few(list(wire.secrets), "secrets")},
        clone_token=text(wire.clone_token, "clone_token"),
        trusted=not wire.untrusted,
        cache_from=[text(each, "cache_from", MAX_NAME) for each in few(wire.cache_from, "cache_from", MAX_NAMES)],
        part=wire.part,
        parts=[
            PartImage(
                platform=given(each.platform, "part.platform", 64),
                digest=given(each.digest, "part.digest", 256),
                tag=given(each.tag, "part.tag", 128),
            )
            for each in few(wire.parts, "parts", MAX_NAMES)
        ],
        logins=logins_from_wire(wire.logins),
        traceparent=text(wire.traceparent, "traceparent", 55),
    )


def run_requests(assignments: Sequence[Assignment]) -> Iterator[worker_pb2.RunJobRequest]:
    """As few requests as hold them all within the limits; one that is too large by itself goes alone and is refused."""
    request, size = worker_pb2.RunJobRequest(), 0
    for assignment in assignments:
        wire = assignment_to_wire(assignment)
        weight = wire.ByteSize() + 8
        if request.assignments and (size + weight > MAX_MESSAGE_BYTES or len(request.assignments) == MAX_ITEMS):
            yield request
            request, size = worker_pb2.RunJobRequest(), 0
        request.assignments.append(wire)
        size += weight
    if request.assignments:
        yield request


def assignments_from_wire(wire: worker_pb2.RunJobRequest) -> list[Assignment | BlacktreeError]:
    """One for each, in order; an assignment that cannot be read is its error, and no reason to refuse the others."""
    result: list[Assignment | BlacktreeError] = []
    for each in few(wire.assignments, "assignments"):
        try:
            result.append(assignment_from_wire(each))
        except BadRequest as error:
            result.append(error)
    return result


def answers_to_wire(answers: Sequence[Answer]) -> worker_pb2.RunJobReply:
    return worker_pb2.RunJobReply(
        answers=[worker_pb2.Answer(accepted=each.accepted, code=each.code, reason=each.reason) for each in answers]
    )


def answers_from_wire(wire: worker_pb2.RunJobReply, expected: int) -> list[Answer]:
    if len(wire.answers) != expected:
        raise refused("answers", f"{len(wire.answers)} for {expected} assignments")
    return [
        Answer(accepted=each.accepted, code=text(each.code, "answer.code"), reason=text(each.reason, "answer.reason"))
        for each in wire.answers
    ]


def orders_to_wire(orders: Sequence[StopOrder]) -> worker_pb2.StopJobRequest:
    return worker_pb2.StopJobRequest(
        orders=[
            worker_pb2.StopOrder(name=name_to_wire(order.name), why=order.why, reason=order.reason) for order in orders
        ]
    )


def orders_from_wire(wire: worker_pb2.StopJobRequest) -> list[StopOrder]:
    return [
        StopOrder(
            name=name_from_wire(each.name), why=word(each.why, "why", STOP_WORDS), reason=text(each.reason, "reason")
        )
        for each in few(wire.orders, "orders")
    ]


def stop_answers_to_wire(answers: Sequence[StopAnswer]) -> worker_pb2.StopJobReply:
    return worker_pb2.StopJobReply(answers=[worker_pb2.StopAnswer(known=each.known) for each in answers])


def stop_answers_from_wire(wire: worker_pb2.StopJobReply, expected: int) -> list[StopAnswer]:
    if len(wire.answers) != expected:
        raise refused("answers", f"{len(wire.answers)} for {expected} orders")
    return [StopAnswer(known=each.known) for each in wire.answers]


def status_to_wire(status: WorkerStatus) -> worker_pb2.WorkerStatus:
    return worker_pb2.WorkerStatus(
        slots=status.slots,
        busy=status.busy,
        refusal=status.refusal,
        draining=status.draining,
        free_disk_bytes=status.free_disk_bytes,
        engine=status.engine,
        warm=status.warm,
        platforms=status.platforms,
        emulated=status.emulated,
    )


def status_from_wire(holder: Any) -> WorkerStatus:
    """The `status` of whatever bears one."""
    if not holder.HasField("status"):
        raise refused("status", "is missing")
    status = holder.status
    return WorkerStatus(
        slots=count(status.slots, "status.slots"),
        busy=count(status.busy, "status.busy"),
        refusal=text(status.refusal, "status.refusal"),
        draining=status.draining,
        free_disk_bytes=count(status.free_disk_bytes, "status.free_disk_bytes"),
        engine=text(status.engine, "status.engine"),
        warm=[text(each, "status.warm") for each in few(status.warm, "status.warm")],
        platforms=_platforms(status.platforms, "status.platforms"),
        emulated=_platforms(status.emulated, "status.emulated"),
    )


def _platforms(wire: Any, field: str) -> list[str]:
    return [text(each, field, 64) for each in few(wire, field, MAX_NAMES)]


def ping_to_wire(answer: PingAnswer) -> worker_pb2.PingReply:
    return worker_pb2.PingReply(
        worker_id=answer.worker_id, incarnation=answer.incarnation, status=status_to_wire(answer.status)
    )


def ping_from_wire(wire: worker_pb2.PingReply) -> PingAnswer:
    return PingAnswer(
        worker_id=worker_id(wire.worker_id),
        incarnation=given(wire.incarnation, "incarnation", 256),
        status=status_from_wire(wire),
    )


def registration_to_wire(registration: Registration) -> orchestrator_pb2.RegisterRequest:
    return orchestrator_pb2.RegisterRequest(
        worker_id=registration.worker_id,
        incarnation=registration.incarnation,
        secret=registration.secret,
        protocol=registration.protocol,
        version=registration.version,
        address=registration.address,
        pool=registration.pool,
        labels=registration.labels,
        platform=registration.platform,
        status=status_to_wire(registration.status),
        running=[name_to_wire(name) for name in registration.running],
        capabilities=registration.capabilities,
    )


def registration_from_wire(wire: orchestrator_pb2.RegisterRequest) -> Registration:
    labels = {key: wire.labels[key] for key in few(list(wire.labels), "labels", MAX_LABELS)}
    return Registration(
        worker_id=worker_id(wire.worker_id),
        incarnation=given(wire.incarnation, "incarnation", 256),
        secret=given(wire.secret, "secret", 1024),
        protocol=count(wire.protocol, "protocol"),
        version=text(wire.version, "version", 256),
        address=given(wire.address, "address", 1024),
        pool=given(wire.pool, "pool", 32),
        labels={text(key, "labels", 256): text(value, "labels") for key, value in labels.items()},
        platform=text(wire.platform, "platform", 256),
        status=status_from_wire(wire),
        running=[name_from_wire(name) for name in few(wire.running, "running")],
        capabilities=[
            text(each, "capabilities", 64) for each in few(wire.capabilities, "capabilities", MAX_CAPABILITIES)
        ],
    )


def _verdicts_to_wire(verdicts: Sequence[Verdict]) -> list[orchestrator_pb2.Verdict]:
    return [
        orchestrator_pb2.Verdict(
            name=name_to_wire(each.name),
            next_batch=each.next_batch,
            stop=each.stop,
            publish_seconds=each.publish_seconds,
            withheld=each.withheld,
        )
        for each in verdicts
    ]


def _verdicts_from_wire(wire: Any) -> list[Verdict]:
    result = []
    for each in few(wire.verdicts, "verdicts"):
        result.append(
            Verdict(
                name=name_from_wire(each.name),
                next_batch=count(each.next_batch, "verdict.next_batch", 1),
                stop=word(each.stop, "verdict.stop", STOP_WORDS) if each.stop else "",
                publish_seconds=seconds(each.publish_seconds, "verdict.publish_seconds"),
                withheld=[text(name, "withheld", MAX_NAME) for name in few(each.withheld, "withheld", MAX_NAMES)],
            )
        )
    return result


def admission_to_wire(admission: Admission) -> orchestrator_pb2.RegisterReply:
    return orchestrator_pb2.RegisterReply(
        farm_id=admission.farm_id,
        lease_seconds=admission.lease_seconds,
        verdicts=_verdicts_to_wire(admission.verdicts),
        drain=admission.drain,
    )


def admission_from_wire(wire: orchestrator_pb2.RegisterReply) -> Admission:
    if not wire.lease_seconds > 0:
        raise refused("lease_seconds", "is missing")
    return Admission(
        farm_id=given(wire.farm_id, "farm_id", 256),
        lease_seconds=seconds(wire.lease_seconds, "lease_seconds"),
        verdicts=_verdicts_from_wire(wire),
        drain=wire.drain,
    )


def report_to_wire(report: Report) -> orchestrator_pb2.ReportRequest:
    return orchestrator_pb2.ReportRequest(
        worker_id=report.worker_id,
        incarnation=report.incarnation,
        status=status_to_wire(report.status),
        attempts=[
            orchestrator_pb2.AttemptReport(
                name=name_to_wire(each.name),
                batches=[_batch_to_wire(batch) for batch in each.batches],
                publish=each.publish,
                references=each.references,
            )
            for each in report.attempts
        ],
    )


def _batch_to_wire(batch: Batch) -> orchestrator_pb2.Batch:
    return orchestrator_pb2.Batch(
        number=batch.number,
        records=[record_to_wire(record) for record in batch.records],
        commit=batch.commit,
        outcome=outcome_to_wire(batch.outcome) if batch.outcome is not None else None,
    )


def report_from_wire(wire: orchestrator_pb2.ReportRequest) -> Report:
    count = sum(len(batch.records) for each in few(wire.attempts, "attempts") for batch in few(each.batches, "batches"))
    if count > MAX_RECORDS:
        raise TooLarge(f"records: {count} in one report, the limit is {MAX_RECORDS}", path="records")
    return Report(
        worker_id=worker_id(wire.worker_id),
        incarnation=given(wire.incarnation, "incarnation", 256),
        status=status_from_wire(wire),
        attempts=[
            AttemptReport(
                name=name_from_wire(each.name),
                batches=[_batch_from_wire(batch) for batch in each.batches],
                publish=each.publish,
                references=[given(name, "references", MAX_NAME) for name in few(each.references, "names", MAX_NAMES)],
            )
            for each in wire.attempts
        ],
    )


def _batch_from_wire(wire: orchestrator_pb2.Batch) -> Batch:
    return Batch(
        number=count(wire.number, "batch.number", 1),
        records=[record_from_wire(record) for record in wire.records],
        commit=commit(wire.commit) if wire.HasField("commit") else None,
        outcome=outcome_from_wire(wire.outcome) if wire.HasField("outcome") else None,
    )


def report_answer_to_wire(answer: ReportAnswer) -> orchestrator_pb2.ReportReply:
    return orchestrator_pb2.ReportReply(
        known=answer.known, verdicts=_verdicts_to_wire(answer.verdicts), drain=answer.drain
    )


def report_answer_from_wire(wire: orchestrator_pb2.ReportReply) -> ReportAnswer:
    return ReportAnswer(known=wire.known, verdicts=_verdicts_from_wire(wire), drain=wire.drain)


def leave_to_wire(worker_id: str, incarnation: str) -> orchestrator_pb2.LeaveRequest:
    return orchestrator_pb2.LeaveRequest(worker_id=worker_id, incarnation=incarnation)


def leave_from_wire(wire: orchestrator_pb2.LeaveRequest) -> tuple[str, str]:
    return worker_id(wire.worker_id), given(wire.incarnation, "incarnation", 256)
