"""A small orchestrator's side: admits workers, stores batches once and in order, hands out verdicts."""

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from blacktree.errors import NotAllowed, PeerLost
from blacktree.event import Lines, Record
from blacktree.job import Outcome
from blacktree.rpc.peer import (
    Admission,
    Assignment,
    AttemptName,
    Batch,
    Registration,
    Report,
    ReportAnswer,
    Verdict,
)
from blacktree.spec import JobSpec
from tests.parts.no_replicas import TakesNoReplicas


@dataclass
class Stored:
    """What came of one attempt."""

    batches: list[Batch] = field(default_factory=list)
    repeated: int = 0
    publish_asked: int = 0

    @property
    def records(self) -> list[Record]:
        return [record for batch in self.batches for record in batch.records]

    @property
    def text(self) -> str:
        return "".join(record.text for record in self.records if isinstance(record, Lines))

    @property
    def outcome(self) -> Outcome | None:
        return self.batches[-1].outcome if self.batches else None

    @property
    def commit(self) -> str | None:
        return next((batch.commit for batch in self.batches if batch.commit), None)


class OrchestratorPart(TakesNoReplicas):
    """`OrchestratorSide` in memory. `away`: every call is lost; `forget()`: as after a restart."""

    def __init__(self, *, lease_seconds: float = 30.0, publish_seconds: float = 5.0) -> None:
        self.lease_seconds = lease_seconds
        self.publish_seconds = publish_seconds
        self.away = False
        self.missed = 0
        self.lose_answers = 0
        self.stores = True
        self.refusal = ""
        self.refused = 0
        self.drain = False
        self.stops: dict[tuple[str, int], str] = {}
        self.registrations: list[Registration] = []
        self.reports: list[Report] = []
        self.stored: dict[tuple[str, int], Stored] = {}
        self.left: list[str] = []
        self.known: set[str] = set()
        self._changed = trio.Event()

    async def register(self, registration: Registration) -> Admission:
        await self._reach()
        if self.refusal:
            self.refused += 1
            self._ring()
            raise NotAllowed(self.refusal, advice="ask the operator")
        self.registrations.append(registration)
        self.known.add(registration.incarnation)
        self._ring()
        return Admission(
            farm_id="farm",
            lease_seconds=self.lease_seconds,
            verdicts=[self._verdict(name, False) for name in registration.running],
            drain=self.drain,
        )

    async def report(self, report: Report) -> ReportAnswer:
        await self._reach()
        if report.incarnation not in self.known:
            return ReportAnswer(known=False)
        self.reports.append(report)
        verdicts = []
        for each in report.attempts:
            stored = self.stored.setdefault((each.name.job_id, each.name.attempt), Stored())
            for batch in each.batches if self.stores else []:
                if batch.number == len(stored.batches) + 1:
                    stored.batches.append(batch)
                elif batch.number <= len(stored.batches):
                    assert batch == stored.batches[batch.number - 1], "a batch changed after it was sent"
                    stored.repeated += 1
            stored.publish_asked += each.publish
            verdicts.append(self._verdict(each.name, each.publish))
        self._ring()
        if self.lose_answers > 0:
            self.lose_answers -= 1
            raise PeerLost("the answer was lost")
        return ReportAnswer(known=True, verdicts=verdicts, drain=self.drain)

    async def leave(self, worker_id: str, incarnation: str) -> None:
        await self._reach()
        self.left.append(incarnation)
        self._ring()

    def forget(self) -> None:
        self.known.clear()

    def of(self, name: AttemptName) -> Stored:
        return self.stored.setdefault((name.job_id, name.attempt), Stored())

    async def until(self, condition: Callable[[], bool], seconds: float = 40.0) -> None:
        """Wait for something that a call brings about."""
        with trio.fail_after(seconds):
            while not condition():
                await self._changed.wait()

    async def outcome(self, name: AttemptName, seconds: float = 40.0) -> Outcome:
        await self.until(lambda: self.of(name).outcome is not None, seconds)
        outcome = self.of(name).outcome
        assert outcome is not None
        return outcome

    def _verdict(self, name: AttemptName, publish: bool) -> Verdict:
        return Verdict(
            name=name,
            next_batch=len(self.of(name).batches) + 1,
            stop=self.stops.get((name.job_id, name.attempt), ""),
            publish_seconds=self.publish_seconds if publish else 0.0,
        )

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.away:
            self.missed += 1
            self._ring()
            raise PeerLost("nobody answers")

    def _ring(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def an_assignment(
    job_id: str = "job1", attempt: int = 1, *, script: str = "", secrets: dict[str, bytes] | None = None, **spec: object
) -> Assignment:
    """A job for the scripted provider."""
    build_args = {"SCRIPT": script} if script else {}
    return Assignment(
        name=AttemptName(job_id=job_id, attempt=attempt, token=f"token-{job_id}-{attempt}"),
        spec=JobSpec(repository="https://example.org/team/app.git", build_args=build_args, **spec),
        secrets=secrets or {},
    )
