"""Tells the orchestrator how the replicas stand: at once on a change, and at least every third of the lease."""

import msgspec
import structlog
import trio

from blacktree.concurrency.threads import in_thread
from blacktree.errors import BlacktreeError, NotAllowed
from blacktree.rpc.peer import MAX_REPORT_BYTES, OrchestratorSide
from blacktree.rpc.replica import MAX_REPLICAS, ReplicaAnswer, ReplicaLog, ReplicaReport, ReplicaState
from blacktree.worker.bell import Bell
from blacktree.worker.clip import clip, clip_lines
from blacktree.worker.identity import Identity
from blacktree.worker.lease import Lease, boottime
from blacktree.worker.link import pause
from blacktree.worker.replica_logs import size_of
from blacktree.worker.replica_store import ReplicaStore
from blacktree.worker.replicas import Replicas

log = structlog.get_logger()

CALL_SECONDS = 10.0
# An orchestrator that knows nothing of replicas is asked again after this: it may be upgraded.
UNKNOWN_CALL_SECONDS = 60.0
UNREGISTERED_SECONDS = 0.2
IDLE_SECONDS = 10.0
CONTACT_SECONDS = 1.0
STATES_BYTES = 2 << 20  # of their words
LINE_BYTES = 8  # a line's frame on the wire


def bounded(states: list[ReplicaState]) -> list[ReplicaState]:
    """The states, as many as a report may have, with fewer words where they would not fit in a message beside
    `MAX_REPORT_BYTES` of output. Pure. What is left out here (the last ones: those that stopped) comes later."""
    states = states[: 2 * MAX_REPLICAS]
    if sum(_words(state) for state in states) <= STATES_BYTES:
        return states
    share = STATES_BYTES // len(states)
    return [
        state
        if _words(state) <= share
        else msgspec.structs.replace(
            state, reason=clip(state.reason, share // 4), last_lines=clip_lines(state.last_lines, share // 2)
        )
        for state in states
    ]


def _words(state: ReplicaState) -> int:
    return sum(len(text.encode("utf-8", "replace")) + LINE_BYTES for text in (state.reason, *state.last_lines))


class ReplicaReporter:
    """`run` for ever."""

    def __init__(
        self,
        side: OrchestratorSide,
        identity: Identity,
        replicas: Replicas,
        store: ReplicaStore,
        lease: Lease,
        bell: Bell,
    ) -> None:
        self._side = side
        self._identity = identity
        self._replicas = replicas
        self._store = store
        self._lease = lease
        self._bell = bell
        self._turn = 0
        self._kept = 0.0

    async def run(self) -> None:
        """Report until cancelled. A worker that never had an order has nothing to say."""
        failures = 0
        while True:
            await self._bell.hear(self._lease.heartbeat_seconds or IDLE_SECONDS)
            replicas = self._replicas
            if not replicas.ready or not (replicas.revision or replicas.states() or replicas.books()):
                continue
            report = await self._gather()
            sent = boottime()
            try:
                with trio.fail_after(CALL_SECONDS):
                    answer = await self._side.report_replicas(report)
            except NotAllowed as error:
                if error.code == "not_blacktree":
                    log.warning("the orchestrator knows nothing of replicas; it may be older than this worker")
                    await trio.sleep(UNKNOWN_CALL_SECONDS)
                else:
                    log.error("the orchestrator refuses a report of replicas", reason=str(error))
                    await trio.sleep(pause(failures))
                    failures += 1
                continue
            except (BlacktreeError, trio.TooSlowError) as error:
                level = log.warning if failures == 0 else log.debug
                level("report of replicas not answered", reason=str(error) or "no answer in time")
                await trio.sleep(pause(failures))
                failures += 1
                self._bell.ring()
                continue
            failures = 0
            if not answer.known:
                # Registering is the link's business; it is about it.
                await trio.sleep(UNREGISTERED_SECONDS)
                self._bell.ring()
                continue
            await self._heard(report, answer, sent)

    async def _gather(self) -> ReplicaReport:
        """Every state; as much output as fits, each time beginning with another replica."""
        states = self._replicas.states()
        books = self._replicas.books()
        logs: list[ReplicaLog] = []
        if books:
            self._turn = (self._turn + 1) % len(books)
            left = MAX_REPORT_BYTES
            for _, book in books[self._turn :] + books[: self._turn]:
                if left > 0 and book.pending:
                    taken = await book.take(left)
                    logs += taken
                    left -= sum(size_of(each.records) for each in taken)
        return ReplicaReport(
            worker_id=self._identity.worker_id,
            incarnation=self._identity.incarnation,
            revision=self._replicas.told_revision,
            states=bounded(states),
            logs=logs,
        )

    async def _heard(self, report: ReplicaReport, answer: ReplicaAnswer, sent: float) -> None:
        self._replicas.contact = max(self._replicas.contact, sent)
        books = dict(self._replicas.books())
        for stored in answer.stored:
            book = books.get((stored.name, stored.generation))
            if book is not None:
                await book.stored(stored.next_number)
        self._replicas.told(report.states)
        if sent >= self._kept + CONTACT_SECONDS:
            self._kept = sent
            try:
                await in_thread(lambda: self._store.write_contact(sent))
            except OSError as error:
                log.warning("the time of contact is not kept", reason=str(error))
        if any(book.pending for _, book in self._replicas.books()):
            self._bell.ring()
