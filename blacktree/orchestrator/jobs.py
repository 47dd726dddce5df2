"""One job from its ticket to its end: lease, attempt on record, hand-off, acknowledgement, and how a stop settles."""

import math
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial

import structlog
import trio

from blacktree.broker.base import Delivery
from blacktree.clock import new_id
from blacktree.errors import BadRequest, BlacktreeError, BrokerLost, Conflict, NotFound, StorageFailed, Unavailable
from blacktree.job import Failure, Job, JobState, Part
from blacktree.orchestrator import moves, parting
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.claim import Claim
from blacktree.orchestrator.held import Book, Held
from blacktree.orchestrator.ledger import Ledger
from blacktree.orchestrator.member import Member
from blacktree.orchestrator.parcel import Parcels
from blacktree.orchestrator.parking import Parking
from blacktree.orchestrator.recent import Recent
from blacktree.orchestrator.ticket import Submission, Ticket, Translate, read_body, without_token
from blacktree.orchestrator.ways import wanted, wanted_by
from blacktree.orchestrator.workers import Workers
from blacktree.rpc.peer import Answer, Assignment, StopOrder
from blacktree.storage.base import Decide, Store

log = structlog.get_logger()

SETTLE_SECONDS = 5.0
LAST_SETTLE_SECONDS = 0.5
STOP_PROOF_SECONDS = 1.5
ASK_AGAIN_SECONDS = 5.0
RETURN_LOOK_SECONDS = 0.1
UNREACHED_SECONDS = 2.0


class Jobs:
    """Every job that a worker holds, each in a task and a cancel scope of its own."""

    def __init__(
        self,
        store: Store,
        workers: Workers,
        book: Book,
        recent: Recent,
        chronicle: Chronicle,
        rules: moves.Rules,
        *,
        accept: Callable[[Submission, bool, Decide | None], Awaitable[Job]],
        translate: Translate,
        parcels: Parcels,
        parking: Parking,
        slot_wait_seconds: float,
    ) -> None:
        self._store = store
        self._ledger = Ledger(store)
        self._workers = workers
        self._book = book
        self._recent = recent
        self._chronicle = chronicle
        self._rules = rules
        self._accept = accept
        self._translate = translate
        self._parcels = parcels
        self._parking = parking
        self._slot_wait_seconds = slot_wait_seconds
        self.handed_off = 0
        self.refused = 0
        # Queued on record, and put aside because waiting mends nothing: no ticket brings them any further.
        self.aside: set[str] = set()

    async def run(self, delivery: Delivery, pool: str, *, task_status: trio.TaskStatus[None]) -> None:
        """Bring a delivery of this pool's queue to a worker and stay until the attempt is over.

        `started()` comes once a slot is leased (or the delivery is settled): until then nothing more is taken from
        the queue. Unless its hand-off is on record, the delivery goes back.
        """
        settle: Callable[[], Awaitable[None]] | None = delivery.requeue
        try:
            with trio.move_on_after(self._slot_wait_seconds) as waiting:
                body = read_body(delivery.body, self._translate)
                known = body if isinstance(body, Submission) else await self._known(body.id)
                needs = await self._needs(body, known, pool)
                if needs is None:
                    settle = delivery.ack
                    return
                async with self._workers.lease(pool, known.spec.repository, body.id, needs) as member:
                    # RabbitMQ takes a delivery back after 30 minutes; from here on it is a matter of moments.
                    waiting.deadline = float("inf")
                    task_status.started()
                    claim = Claim(member, self._rules)
                    job = await self._current(body, pool, claim)
                    held = await self._hand_off(job, claim) if job is not None else None
                    if job is None or held is not None:
                        settle = None
                        await _settle(delivery.ack)
                    if held is not None:
                        await self._follow(held)
        except (BadRequest, Conflict, NotFound) as error:
            # Of no use to anybody, ever: aside with it, and the reason with it.
            reason = f"{error.code}: {error}"
            log.warning("message refused", reason=reason, message_id=delivery.message_id)
            settle = partial(delivery.reject, reason, body=without_token(delivery.body))
        except StorageFailed as error:
            if settle is not None and error.code != "storage_closed":
                # Waiting mends no damage, and the whole pool stands behind this one job.
                settle = partial(delivery.reject, f"{error.code}: {error}", body=without_token(delivery.body))
                self._chronicle.note("job_damaged", f"a job was put aside: {error}", subject=body.id)
                self.aside.add(body.id)
            log.error("job cannot be read or written", message_id=delivery.message_id, reason=str(error))
        except Unavailable as error:
            log.info("delivery goes back", reason=str(error))
        finally:
            if settle is not None:
                await _settle(settle)
            # Whatever became of it: a dispatcher that is never told so takes the whole daemon with it.
            with suppress(RuntimeError):
                task_status.started()

    async def adopt(self, held: Held) -> None:
        """Stay with an attempt that was under way before this process began."""
        try:
            async with self._workers.hold(held.worker_id, held.name.job_id):
                # We may have ended between record and hand-off; then its worker has never heard of it.
                try:
                    member = await self._return_of(held)
                except trio.Cancelled:
                    await self._hand_back(held)
                    raise
                if member is not None:
                    await self._deliver(held, member, moves.absent(held.name, self._rules))
                await self._follow(held)
        except StorageFailed as error:
            log.error("left an adopted job", job=held.name.job_id, reason=str(error))

    async def _return_of(self, held: Held) -> Member | None:
        """The worker of an adopted attempt, once it is back; None if it need not be asked to take it."""
        while not (held.accepted or held.why or held.done.is_set()):
            if (member := self._workers.member(held.worker_id, held.incarnation)) is not None:
                return member
            with trio.move_on_after(RETURN_LOOK_SECONDS):
                await held.done.wait()
        return None

    async def _needs(self, body: Ticket | Submission, known: Submission | Job, pool: str) -> Collection[str] | None:
        """The platforms that the worker must build; None where this delivery has served its turn without one.

        A job that would have to wait for such a worker steps aside, so that nobody waits behind it.
        """
        if isinstance(known, Submission):
            if wanted(known.spec).families:
                # On record first, and from there a ticket: the message itself cannot step aside.
                await self._ledger.insist(partial(self._accept, known, True, None))
                return None
            return ()
        if not _is_for(body, known, pool):
            return None
        want = wanted_by(known)
        if not want.families:
            return ()
        if not self._workers.can_go(pool, want):
            self._parking.put(known)
            return None
        way = self._workers.way(pool, want)
        if way.split:
            parts = [Part(platform=platform, job_id=new_id()) for platform in known.spec.platforms]
            decide = parting.split(known.generation, parts, self._rules)
            await self._ledger.insist(partial(self._store.change, known.id, decide))
            return None
        return way.needs

    async def _known(self, job_id: str) -> Job:
        recent = self._recent.get(job_id)
        return recent if recent is not None else await self._ledger.insist(partial(self._store.get, job_id))

    async def _current(self, body: Ticket | Submission, pool: str, claim: Claim) -> Job | None:
        """The queued job that this delivery stands for, or None if it stands for nothing any more.

        A job that came straight from the queue is put on record here, with its first attempt in the same transaction;
        its message is also its first ticket, unless it lay on another pool's queue than its spec names: then it gets
        one of its own there. Where its key names an earlier job, that one has a ticket of its own.
        """
        if isinstance(body, Submission):
            here = body.spec.pool == pool
            then = claim.on(body.id, 1) if here else None
            job = await self._ledger.insist(partial(self._accept, body, not here, then))
            if claim.bears(job):
                return job
            if job.id != body.id:
                return None
        else:
            job = await self._known(body.id)
        return job if _is_for(body, job, pool) else None

    async def _hand_off(self, job: Job, claim: Claim) -> Held | None:
        """The attempt on record, then in the worker's hands; None if this delivery has to be looked at again."""
        member = claim.member
        if not claim.bears(job):
            await self._ledger.insist(partial(self._store.change, job.id, claim.on(job.id, job.generation)))
        held = self._book.of_job(job.id)
        if held is None or held.name.token != claim.token:
            return None
        if member.gone.is_set():
            # It left while this was being written: whoever saw to what it held had not seen this attempt yet.
            await self._ledger.commit(job.id, moves.refuse(held.name, f"{member.id} is gone", self._rules))
            return None
        return held if await self._deliver(held, member, None) else None

    async def _deliver(self, held: Held, member: Member, otherwise: Decide | None) -> bool:
        """Bring an attempt on record to its worker. A refusal undoes it, or is met with `otherwise`; then False."""
        job = held.job
        try:
            assignment = await self._packed(held)
            if isinstance(assignment, Failure):
                await self._ledger.commit(job.id, moves.fail(held.name, assignment, self._rules))
                return True
            answer = await self._ask(held, member, assignment)
        except trio.Cancelled:
            await self._hand_back(held)
            raise
        if answer is None or answer.accepted:
            self.handed_off += 1
            return True
        self.refused += 1
        log.info("hand-off refused", job=job.id, worker=member.id, reason=answer.reason)
        if answer.code == "fenced":
            await self._ledger.commit(job.id, moves.absent(held.name, self._rules))
        else:
            self._workers.refused(member, answer.reason)
            undo = moves.refuse(held.name, f"{member.id}: {answer.reason}", self._rules)
            await self._ledger.commit(job.id, otherwise or undo)
        return False

    async def _packed(self, held: Held) -> Assignment | Failure:
        """What its worker is handed; whatever keeps it from being put together ends the attempt: nobody else would."""
        try:
            return await self._ledger.insist(partial(self._parcels.pack, held))
        except BlacktreeError as error:
            if error.code == "storage_closed":
                raise
            return Failure(code=error.code, message=error.message, advice=error.advice)

    async def _ask(self, held: Held, member: Member, assignment: Assignment) -> Answer | None:
        """The worker's answer. None: it is over meanwhile, and whether the worker took it no longer matters."""
        delay = 0.1
        given_up = self._given_up()
        # A worker that names it has it, whatever became of its answer.
        while not (held.done.is_set() or held.accepted):
            try:
                return await member.run_job(assignment)
            except (BlacktreeError, trio.ClosedResourceError) as error:
                # It may or may not have arrived. The same attempt gets the same answer, so asking again is safe.
                log.info("hand-off not answered", job=held.name.job_id, worker=member.id, reason=str(error))
                if isinstance(error, BlacktreeError) and not isinstance(error, Unavailable):
                    # Calls are grouped and asked again: an earlier part may have arrived, and then only the worker's
                    # own word that it holds nothing undoes it.
                    self._workers.refused(member, str(error))
                    held.stop("shutdown")
                    return None
                if trio.current_time() > given_up:
                    # It still reports, but we do not get through to it, and it does not name this attempt.
                    self._workers.unreachable(member, f"takes no hand-off: {error}")
                    return Answer(accepted=False, code="fenced", reason=str(error))
            with trio.move_on_after(delay):
                await held.done.wait()
            delay = min(delay * 2, 5.0)
            replaced = self._workers.member(held.worker_id, held.incarnation)
            member = replaced if replaced is not None else member
        return None

    def _given_up(self) -> float:
        """From when on an attempt is not there that its worker, which still reports, has never named."""
        return trio.current_time() + self._workers.lease_seconds + UNREACHED_SECONDS

    async def _follow(self, held: Held) -> None:
        """Until the attempt is over. A stop ends the scope: ask the worker, and wait for the proof."""
        if held.why:
            held.scope.cancel(reason=held.why)
        try:
            with held.scope:
                await held.done.wait()
            while not held.done.is_set():
                await self._stop(held, held.why or "timed_out")
        except trio.Cancelled:
            await self._hand_back(held)
            raise

    async def _hand_back(self, held: Held) -> None:
        """The running ring has ended: stop the build on its worker, for as long as a shutdown may last."""
        with trio.move_on_after(STOP_PROOF_SECONDS, shield=True), suppress(StorageFailed):
            await self._stop(held, held.why or "shutdown")

    async def _stop(self, held: Held, why: str) -> None:
        """Ask until the attempt is over. The proof comes by report; losing the lease ends it too."""
        held.why = held.why or why
        if why != "canceled":
            await self._ledger.commit(held.name.job_id, moves.order_stop(held.name, why))
        given_up = self._given_up()
        while not held.done.is_set():
            with trio.move_on_after(await self._ask_to_stop(held, why)):
                await held.done.wait()
            if not held.accepted and trio.current_time() > given_up:
                await self._ledger.commit(held.name.job_id, moves.absent(held.name, self._rules))

    async def _ask_to_stop(self, held: Held, why: str) -> float:
        """One order; answers after how many seconds to ask again."""
        member = self._workers.member(held.worker_id, held.incarnation)
        if member is None:
            return 0.5
        try:
            answer = await member.stop_job(StopOrder(name=held.name, why=why, reason=held.job.cancel_reason or ""))
        except (BlacktreeError, trio.ClosedResourceError) as error:
            log.info("stop not answered", job=held.name.job_id, worker=held.worker_id, reason=str(error))
            return 0.5
        if not answer.known and not held.unproven:
            # Nothing of it runs there, and the worker will refuse it should the hand-off still be under way.
            await self._ledger.commit(held.name.job_id, moves.absent(held.name, self._rules))
        return ASK_AGAIN_SECONDS


def _is_for(body: Ticket | Submission, job: Job, pool: str) -> bool:
    """Whether this delivery, on this pool's queue, still counts."""
    generation = body.generation if isinstance(body, Ticket) else 1
    return job.state is JobState.QUEUED and job.generation == generation and job.spec.pool == pool


async def _settle(call: Callable[[], Awaitable[None]]) -> None:
    """Settle a delivery, whatever cancels us. A broker that is gone delivers again, and the record knows better."""
    ending = trio.current_effective_deadline() == -math.inf
    with trio.move_on_after(LAST_SETTLE_SECONDS if ending else SETTLE_SECONDS, shield=True):
        try:
            await call()
        except BrokerLost as error:
            log.info("settling left to redelivery", reason=str(error))
