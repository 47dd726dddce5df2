"""`OrchestratorSide`: workers register, report and leave here."""

from collections.abc import Callable, Sequence

import structlog
import trio

from blacktree.errors import NotFound, StorageFailed, Unavailable
from blacktree.job import JobState
from blacktree.orchestrator import moves
from blacktree.orchestrator.deployments import Deployments
from blacktree.orchestrator.held import Book, Held
from blacktree.orchestrator.losses import Losses
from blacktree.orchestrator.member import Member
from blacktree.orchestrator.publications import Publications
from blacktree.orchestrator.workers import Workers
from blacktree.rpc.peer import Admission, AttemptReport, Registration, Report, ReportAnswer, Verdict
from blacktree.rpc.replica import ReplicaAnswer, ReplicaReport
from blacktree.storage.base import Store

log = structlog.get_logger()

FENCED = "fenced"


class RegistrationDesk:
    """Answers the workers' calls. What it calls stored is durable; what is not current is fenced off."""

    def __init__(
        self,
        store: Store,
        workers: Workers,
        book: Book,
        losses: Losses,
        publications: Publications,
        rules: moves.Rules,
        deployments: Deployments,
        *,
        farm_id: str,
        ensure_pool: Callable[[str], None],
    ) -> None:
        self._store = store
        self._workers = workers
        self._book = book
        self._losses = losses
        self._publications = publications
        self._rules = rules
        self._deployments = deployments
        self._farm_id = farm_id
        self._ensure_pool = ensure_pool
        self.closing = False

    async def register(self, registration: Registration) -> Admission:
        """See `rpc.peer.OrchestratorSide`."""
        if self.closing:
            raise Unavailable("this orchestrator is shutting down", code="draining")
        member = await self._workers.join(registration)
        self._ensure_pool(registration.pool)
        self._deployments.joined(member.id)
        named = set(registration.running)
        for held in self._book.of_worker(member.id):
            if held.incarnation != registration.incarnation:
                why = f"worker {member.id} was restarted"
                await self._losses.now(held, why)
            elif held.name not in named and held.accepted and not held.unproven:
                await self._losses.now(held, f"worker {member.id} no longer holds it")
        return Admission(
            farm_id=self._farm_id,
            lease_seconds=self._workers.lease_seconds,
            verdicts=[self._verdict(AttemptReport(name=name)) for name in registration.running],
            drain=member.draining,
        )

    async def report(self, report: Report) -> ReportAnswer:
        """See `rpc.peer.OrchestratorSide`."""
        member = self._workers.member(report.worker_id, report.incarnation)
        if member is None:
            return ReportAnswer(known=False)
        self._workers.seen(member, report.status)
        talking = [each for each in report.attempts if each.batches]
        if len(talking) == 1:
            await self._take(talking[0])
        elif talking:
            # One group commit for all of them, not one after the other.
            async with trio.open_nursery() as nursery:
                for each in talking:
                    nursery.start_soon(self._take, each)
        verdicts = [await self._answer(each, member) for each in report.attempts]
        return ReportAnswer(known=True, verdicts=verdicts, drain=member.draining)

    async def leave(self, worker_id: str, incarnation: str) -> None:
        """See `rpc.peer.OrchestratorSide`."""
        member = self._workers.member(worker_id, incarnation)
        if member is None:
            return
        self._workers.leave(worker_id, incarnation)
        for held in self._book.of_worker(worker_id):
            if not held.unproven:
                await self._losses.now(held, f"worker {worker_id} has left", counts=False)

    async def report_replicas(self, report: ReplicaReport) -> ReplicaAnswer:
        """See `rpc.peer.OrchestratorSide`."""
        return await self._deployments.report(report)

    async def _take(self, report: AttemptReport) -> None:
        held = self._book.get(report.name)
        if held is None:
            return
        try:
            await self._store.change(report.name.job_id, moves.report(report.name, report.batches, self._rules))
        except (moves.Fenced, NotFound):
            return
        except StorageFailed as error:
            # Not stored: the verdict says so, and the worker keeps its batches and sends them again.
            log.error("report not stored", job=report.name.job_id, reason=str(error))
            return
        held.accepted = True
        if held.unproven:
            self._losses.unproven(held)

    async def _answer(self, report: AttemptReport, member: Member) -> Verdict:
        held = self._book.get(report.name)
        if not report.publish or held is None or not self._may_publish(held):
            return self._verdict(report)
        withheld: list[str] = []
        if report.references:
            asked = await self._publications.ask(held, report.references, self._grant_seconds)
            if asked is None or self._workers.member(member.id, member.registration.incarnation) is not member:
                # Another job may still be moving one of them, or the lease ended meanwhile. It asks again.
                return self._verdict(report)
            withheld = asked
        return self._verdict(report, publish=True, withheld=withheld)

    def _may_publish(self, held: Held) -> bool:
        return held.job.state is JobState.RUNNING and not held.why and not held.done.is_set()

    def _verdict(self, report: AttemptReport, *, publish: bool = False, withheld: Sequence[str] = ()) -> Verdict:
        name = report.name
        held = self._book.get(name)
        if held is None:
            # Over on record, with this worker's own outcome or without it: either way nothing more is taken.
            after = report.batches[-1].number + 1 if report.batches else 1
            return Verdict(name=name, next_batch=after, stop=FENCED)
        held.accepted = True
        grant = self._grant(held) if publish and self._may_publish(held) else 0.0
        return Verdict(
            name=name,
            next_batch=held.job.attempts[-1].next_batch,
            stop=held.why,
            publish_seconds=grant,
            withheld=list(withheld),
        )

    @property
    def _grant_seconds(self) -> float:
        return min(10.0, self._workers.lease_seconds / 2)

    def _grant(self, held: Held) -> float:
        """No successor starts before the grant has ended: it lies within the lease that this contact renewed."""
        held.grant_until = trio.current_time() + self._grant_seconds
        return self._grant_seconds
