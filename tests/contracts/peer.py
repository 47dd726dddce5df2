"""The promise of `blacktree.rpc.peer`: stand-in sides, sample words, and a suite that any pair of sides must pass."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import pytest
import trio

from blacktree import errors
from blacktree.event import CommitResolved, Lines, Notice, Progress, StateChanged, StepFinished, StepStarted
from blacktree.job import Failure, Image, Outcome
from blacktree.rpc.peer import (
    PROTOCOL_VERSION,
    Admission,
    Answer,
    Assignment,
    AttemptName,
    AttemptReport,
    Batch,
    OrchestratorSide,
    PingAnswer,
    Registration,
    Report,
    ReportAnswer,
    StopAnswer,
    StopOrder,
    Verdict,
    WorkerSide,
    WorkerStatus,
)
from blacktree.rpc.replica import (
    RegistryLogin,
    ReplicaAck,
    ReplicaAnswer,
    ReplicaLog,
    ReplicaName,
    ReplicaOrder,
    ReplicaOrders,
    ReplicaReport,
    ReplicaState,
    ReplicaStored,
)
from blacktree.runspec import Health, HttpCheck, Port, RunSpec
from blacktree.spec import JobSpec

NOON = datetime(2026, 3, 4, 12, 0, 0, 123456, tzinfo=UTC)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def a_name(number: int = 1) -> AttemptName:
    return AttemptName(job_id=f"job-{number}", attempt=number, token=f"token-{number}")


def a_status() -> WorkerStatus:
    return WorkerStatus(slots=4, busy=1, free_disk_bytes=1 << 40, engine="20.10.24", warm=["https://a/b.git"])


def an_assignment(number: int = 1) -> Assignment:
    return Assignment(
        name=a_name(number),
        spec=JobSpec(repository="https://example.org/team/app.git", build_args={"A": "ü"}, tags=["v1"]),
        commit=COMMIT,
        allow_local_sources=True,
        secrets={"npm": b"\x00\xff secret"},
        clone_token="token of the clone",
        logins={"registry.example:5000": RegistryLogin(username="ü", password="a password")},
    )


def a_registration() -> Registration:
    return Registration(
        worker_id="w1",
        incarnation="i1",
        secret="s1",
        protocol=PROTOCOL_VERSION,
        version="0.1.0",
        address="127.0.0.1:6000",
        pool="default",
        labels={"zone": "a"},
        platform="linux/amd64",
        status=a_status(),
        running=[a_name(1), a_name(2)],
        capabilities=["replicas"],
    )


def a_report() -> Report:
    records = [
        StateChanged(NOON, 1, "assigned", "running", ""),
        CommitResolved(NOON, 1, COMMIT),
        StepStarted(NOON, 1, "b1", "RUN make"),
        Lines(NOON, 1, "b1", "stdout", "one\nzwei ü\n\n"),
        Lines(NOON, 1, "b1", "stderr", "piece\n", True),
        Progress(NOON, 1, "b1", 5, 10, "bytes"),
        StepFinished(NOON, 1, "b1", "RUN make", False, 1.5, True),
        Notice(NOON, 1, "output_clipped", "the engine clipped", "b1"),
    ]
    good = Outcome(state="succeeded", image=Image(reference="app:1", id="sha256:1", references=["app:1", "app:2"]))
    bad = Outcome(
        state="failed",
        proven=False,
        error=Failure(code="build_failed", message="no", step="b1", exit_code=-1, last_lines=["a", "b"]),
    )
    return Report(
        worker_id="w1",
        incarnation="i1",
        status=a_status(),
        attempts=[
            AttemptReport(name=a_name(1), batches=[Batch(number=1, records=records, commit=COMMIT)], publish=True),
            AttemptReport(name=a_name(2), batches=[Batch(number=7, outcome=good), Batch(number=8, outcome=bad)]),
            AttemptReport(name=a_name(3)),
        ],
    )


def some_replica_orders() -> ReplicaOrders:
    run = RunSpec(
        name="shop", ports=[Port(container=80, host=8080)], env={"A": "ü"}, health=Health(http=HttpCheck(port=80))
    )
    return ReplicaOrders(
        worker_id="w1",
        revision=7,
        orders=[
            ReplicaOrder(
                name=ReplicaName(deployment="shop", version=version, index=index),
                generation=3,
                image=f"registry.example/shop@sha256:{version:064}",
                pull=True,
                run=run,
                serve=version == 2,
                logins={"registry.example": RegistryLogin(username="u", password="p")},
                secrets={"key": b"\x00\xff secret"},
            )
            for version in (1, 2)
            for index in (0, 1)
        ],
    )


def a_replica_report() -> ReplicaReport:
    name = ReplicaName(deployment="shop", version=1, index=0)
    records = [Lines(NOON, 1, "", "stdout", "one\nzwei ü\n"), Notice(NOON, 1, "output_dropped", "3 lines")]
    return ReplicaReport(
        worker_id="w1",
        incarnation="i1",
        revision=7,
        states=[
            ReplicaState(name=name, generation=3, state="healthy", since=NOON, serving=True, address="127.0.0.1:1"),
            ReplicaState(
                name=ReplicaName(deployment="shop", version=2, index=0),
                generation=1,
                state="backing_off",
                since=NOON,
                container="abc",
                exit_code=137,
                oom_killed=True,
                restarts=2,
                code="oom_killed",
                reason="out of memory",
                last_lines=["a", "b"],
            ),
        ],
        logs=[ReplicaLog(name=name, generation=3, number=1, records=records)],
    )


class StandInWorker:
    """Remembers what it was asked. `gate` unset: calls wait; `fault` set: calls raise it."""

    def __init__(self) -> None:
        self.assignments: list[Assignment] = []
        self.orders: list[StopOrder] = []
        self.replica_orders: list[ReplicaOrders] = []
        self.gate = trio.Event()
        self.gate.set()
        self.entered = trio.Event()
        self.left = trio.Event()
        self.fault: Exception | None = None

    async def _pass(self) -> None:
        self.entered.set()
        try:
            await self.gate.wait()
        finally:
            self.left.set()
        if self.fault is not None:
            raise self.fault

    async def run_jobs(self, assignments: Sequence[Assignment]) -> list[Answer]:
        await self._pass()
        self.assignments += assignments
        return [
            Answer(accepted=True) if each.name.attempt % 2 else Answer(accepted=False, code="busy", reason="all busy")
            for each in assignments
        ]

    async def stop_jobs(self, orders: Sequence[StopOrder]) -> list[StopAnswer]:
        await self._pass()
        self.orders += orders
        return [StopAnswer(known=each.name.attempt == 1) for each in orders]

    async def ping(self) -> PingAnswer:
        await self._pass()
        return PingAnswer(worker_id="w1", incarnation="i1", status=a_status())

    async def apply_replicas(self, orders: ReplicaOrders) -> ReplicaAck:
        await self._pass()
        self.replica_orders.append(orders)
        return ReplicaAck(revision=orders.revision)


class StandInOrchestrator:
    """As `StandInWorker`."""

    def __init__(self) -> None:
        self.registrations: list[Registration] = []
        self.reports: list[Report] = []
        self.replica_reports: list[ReplicaReport] = []
        self.left_workers: list[tuple[str, str]] = []
        self.gate = trio.Event()
        self.gate.set()
        self.entered = trio.Event()
        self.left = trio.Event()
        self.fault: Exception | None = None

    _pass = StandInWorker._pass

    async def register(self, registration: Registration) -> Admission:
        await self._pass()
        self.registrations.append(registration)
        verdicts = [
            Verdict(name=name, next_batch=3, stop="fenced", publish_seconds=2.5) for name in registration.running
        ]
        return Admission(farm_id="farm", lease_seconds=30.0, verdicts=verdicts, drain=True)

    async def report(self, report: Report) -> ReportAnswer:
        await self._pass()
        self.reports.append(report)
        verdicts = [Verdict(name=each.name, next_batch=len(each.batches) + 1) for each in report.attempts]
        return ReportAnswer(known=True, verdicts=verdicts, drain=False)

    async def leave(self, worker_id: str, incarnation: str) -> None:
        await self._pass()
        self.left_workers.append((worker_id, incarnation))

    async def report_replicas(self, report: ReplicaReport) -> ReplicaAnswer:
        await self._pass()
        self.replica_reports.append(report)
        stored = [
            ReplicaStored(name=each.name, generation=each.generation, next_number=each.number + 1)
            for each in report.logs
        ]
        return ReplicaAnswer(known=True, stored=stored)


async def worker_suite(side: WorkerSide, stand_in: StandInWorker) -> None:
    """What crosses arrives as it was, in order, and errors come back as they were raised."""
    assignments = [an_assignment(number) for number in (1, 2, 3)]
    answers = await side.run_jobs(assignments)
    assert stand_in.assignments == assignments
    assert [answer.accepted for answer in answers] == [True, False, True]
    assert answers[1] == Answer(accepted=False, code="busy", reason="all busy")
    orders = [StopOrder(name=a_name(1), why="canceled", reason="by ü"), StopOrder(name=a_name(2), why="fenced")]
    assert await side.stop_jobs(orders) == [StopAnswer(known=True), StopAnswer(known=False)]
    assert stand_in.orders == orders
    assert await side.ping() == PingAnswer(worker_id="w1", incarnation="i1", status=a_status())
    replicas = some_replica_orders()
    assert await side.apply_replicas(replicas) == ReplicaAck(revision=7)
    assert stand_in.replica_orders == [replicas]
    await errors_suite(side.ping, stand_in)


async def orchestrator_suite(side: OrchestratorSide, stand_in: StandInOrchestrator) -> None:
    """As `worker_suite`."""
    registration = a_registration()
    admission = await side.register(registration)
    assert stand_in.registrations == [registration]
    assert (admission.farm_id, admission.lease_seconds, admission.drain) == ("farm", 30.0, True)
    assert admission.verdicts[1] == Verdict(name=a_name(2), next_batch=3, stop="fenced", publish_seconds=2.5)
    report = a_report()
    answer = await side.report(report)
    assert stand_in.reports == [report]
    assert [verdict.next_batch for verdict in answer.verdicts] == [2, 3, 1]
    await side.leave("w1", "i1")
    assert stand_in.left_workers == [("w1", "i1")]
    replicas = a_replica_report()
    told = await side.report_replicas(replicas)
    assert stand_in.replica_reports == [replicas]
    assert told.known
    assert [each.next_number for each in told.stored] == [2]

    async def leave() -> None:
        await side.leave("w1", "i1")

    await errors_suite(leave, stand_in)


async def errors_suite(call: Callable[[], Awaitable[object]], stand_in: StandInWorker | StandInOrchestrator) -> None:
    """Every kind of error comes back as the same kind, with code, message, advice and again."""
    for fault in (
        errors.BadRequest("wrong", path="spec.x", advice="mend it"),
        errors.TooLarge("too much"),
        errors.NotFound("no job", code="no_job"),
        errors.Conflict("clash"),
        errors.NotAllowed("old protocol", code="old_protocol", advice="upgrade"),
        errors.Unavailable("starting", code="starting", retry_after_seconds=7.0),
        errors.StorageFailed("disk full"),
        errors.PeerLost("ü" * 10_000),
        errors.StepFailed("no", again=True),
    ):
        stand_in.fault = fault
        with pytest.raises(type(fault)) as caught:
            await call()
        error = caught.value
        assert type(error) is type(fault)
        assert (error.code, error.advice, error.again) == (fault.code, fault.advice, fault.again)
        assert error.message == fault.message or len(fault.message) > 2000
        assert error.data == fault.data
    stand_in.fault = None
