"""A worker for the orchestrator's tests: real gRPC on both sides, builds that do what the test says."""

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from blacktree.clock import now
from blacktree.errors import Unavailable
from blacktree.event import Lines, Record
from blacktree.job import Image, Outcome
from blacktree.rpc.client import connect_orchestrator
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
    WorkerStatus,
)
from blacktree.rpc.server import serve_worker
from tests.parts.no_replicas import RunsNoReplicas

_numbers = itertools.count(1)


class ToyWorker(RunsNoReplicas):
    """Accepts what it is handed and waits for the test to report on it, unless `automatic` ends it at once."""

    def __init__(
        self,
        id: str = "",
        *,
        slots: int = 2,
        pool: str = "default",
        secret: str = "",
        automatic: bool = False,
        warm: Sequence[str] = (),
        honest_stop: bool = True,
        platforms: Sequence[str] = (),
        emulated: Sequence[str] = (),
    ) -> None:
        self.id = id or f"toy-{next(_numbers)}"
        self.slots = slots
        self.pool = pool
        self.secret = secret or f"secret of {self.id}"
        self.incarnation = f"{self.id}-{next(_numbers)}"
        self.automatic = automatic
        self.warm = list(warm)
        self.honest_stop = honest_stop
        self.platforms, self.emulated = list(platforms), list(emulated)
        self.refusal = ""
        self.refuse_with: Answer | None = None
        self.held: dict[str, Assignment] = {}
        self.batches: dict[AttemptName, int] = {}
        self.assigned, self._assignments = trio.open_memory_channel[Assignment](10_000)
        self.stopped, self.orders = trio.open_memory_channel[StopOrder](10_000)
        self.side: OrchestratorSide | None = None
        self.admission: Admission | None = None
        self.silent = False
        self.draining = False
        self.capabilities: list[str] = []
        self.address = ""
        self._done: list[AttemptReport] = []
        self._wake = trio.Event()

    # WorkerSide

    async def run_jobs(self, assignments: Sequence[Assignment]) -> list[Answer]:
        answers = []
        for assignment in assignments:
            if self.refuse_with is not None:
                answers.append(self.refuse_with)
            elif len(self.held) >= self.slots and assignment.name.job_id not in self.held:
                answers.append(Answer(accepted=False, code="busy", reason="all slots busy"))
            else:
                self.held[assignment.name.job_id] = assignment
                self.assigned.send_nowait(assignment)
                answers.append(Answer(accepted=True))
                if self.automatic:
                    self._done.append(
                        AttemptReport(name=assignment.name, batches=[Batch(number=1, outcome=succeeded())])
                    )
                    self._wake.set()
        return answers

    async def stop_jobs(self, orders: Sequence[StopOrder]) -> list[StopAnswer]:
        answers = []
        for order in orders:
            self.stopped.send_nowait(order)
            held = self.held.get(order.name.job_id)
            answers.append(StopAnswer(known=held is not None and held.name == order.name))
            if held is not None and self.honest_stop:
                state = {"canceled": "canceled", "timed_out": "timed_out"}.get(order.why, "returned")
                number = self.batches.get(order.name, 0) + 1
                self.batches[order.name] = number
                outcome = Outcome(state=state)
                self._done.append(AttemptReport(name=order.name, batches=[Batch(number=number, outcome=outcome)]))
                self._wake.set()
        return answers

    async def ping(self) -> PingAnswer:
        return PingAnswer(worker_id=self.id, incarnation=self.incarnation, status=self.status())

    def status(self) -> WorkerStatus:
        return WorkerStatus(
            slots=self.slots,
            busy=len(self.held),
            refusal=self.refusal,
            draining=self.draining,
            warm=self.warm,
            platforms=self.platforms,
            emulated=self.emulated,
        )

    # What a test does with it

    async def next_assignment(self) -> Assignment:
        return await self._assignments.receive()

    async def register(self) -> Admission:
        assert self.side is not None
        self.admission = await self.side.register(
            Registration(
                worker_id=self.id,
                incarnation=self.incarnation,
                secret=self.secret,
                protocol=PROTOCOL_VERSION,
                version="test",
                address=self.address,
                pool=self.pool,
                labels={},
                platform="linux/amd64",
                status=self.status(),
                running=[each.name for each in self.held.values()],
                capabilities=self.capabilities,
            )
        )
        return self.admission

    async def report(self, *attempts: AttemptReport) -> ReportAnswer:
        assert self.side is not None
        named = {each.name for each in attempts}
        others = [AttemptReport(name=each.name) for each in self.held.values() if each.name not in named]
        answer = await self.side.report(
            Report(worker_id=self.id, incarnation=self.incarnation, status=self.status(), attempts=[*attempts, *others])
        )
        self.draining = answer.drain
        return answer

    async def say(self, assignment: Assignment, *records: Record, commit: str | None = None) -> ReportAnswer:
        number = self.batches.get(assignment.name, 0) + 1
        self.batches[assignment.name] = number
        batch = Batch(number=number, records=list(records), commit=commit)
        return await self.report(AttemptReport(name=assignment.name, batches=[batch]))

    async def end(self, assignment: Assignment, outcome: Outcome | None = None, *records: Record) -> ReportAnswer:
        number = self.batches.get(assignment.name, 0) + 1
        self.batches[assignment.name] = number
        batch = Batch(number=number, records=list(records), outcome=outcome or succeeded())
        self.held.pop(assignment.name.job_id, None)
        return await self.report(AttemptReport(name=assignment.name, batches=[batch]))

    async def run(
        self,
        orchestrator: str,
        token: str,
        directory: Path,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve, register, and keep the lease; ends when cancelled, without leaving."""
        async with trio.open_nursery() as nursery:
            listen = f"unix:{directory}/{self.incarnation}.sock"
            self.address = await nursery.start(
                lambda task_status: serve_worker(self, listen, join_token=token, task_status=task_status)
            )
            async with connect_orchestrator(orchestrator, join_token=token) as self.side:
                admission = await self.register()
                task_status.started()
                while True:
                    with trio.move_on_after(admission.lease_seconds / 10):
                        await self._wake.wait()
                    if self.silent:
                        await trio.sleep_forever()
                    self._wake = trio.Event()
                    done, self._done = self._done, []
                    for each in done:
                        self.held.pop(each.name.job_id, None)
                    try:
                        answer = await self.report(*done)
                        # Silent by now: another of its name may have taken its place, and is not to be driven out.
                        if not answer.known and not self.silent:
                            admission = await self.register()
                            if done:
                                self._done = done + self._done
                                self._wake.set()
                    except Unavailable:
                        self._done = done + self._done
                        await trio.sleep(0.05)


def succeeded() -> Outcome:
    return Outcome(state="succeeded", image=Image(reference="app:1", id="sha256:00"))


def failed(*, retryable: bool = False) -> Outcome:
    from blacktree.job import Failure

    return Outcome(state="failed", error=Failure(code="test", message="as the test wants", retryable=retryable))


def lines(*texts: str, attempt: int = 1, step: str = "build") -> Lines:
    return Lines(now(), attempt, step, "stdout", "".join(f"{text}\n" for text in texts))


@asynccontextmanager
async def open_worker(worker: ToyWorker, orchestrator: str, token: str, directory: Path) -> AsyncIterator[ToyWorker]:
    """The worker while the context lasts; leaving it is a kill, not a farewell."""
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: worker.run(orchestrator, token, directory, task_status=task_status))
        yield worker
        nursery.cancel_scope.cancel()
