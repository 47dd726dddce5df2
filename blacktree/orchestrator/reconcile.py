"""The record against the broker: what waits for its time, and what is queued on record but in no queue any more."""

import heapq
from collections.abc import Collection

import structlog
import trio

from blacktree.broker.base import Broker, execute_queue
from blacktree.clock import now
from blacktree.concurrency.every import every
from blacktree.errors import StorageFailed
from blacktree.job import Job, JobState
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.intake import Intake
from blacktree.orchestrator.moves import ticket
from blacktree.orchestrator.relay import Relay
from blacktree.orchestrator.ways import wanted_by
from blacktree.storage.base import Commit, Store

log = structlog.get_logger()

LOOK_SECONDS = 5.0
SETTLED_SECONDS = 2.0


class Delays:
    """Jobs that back off: their ticket is published when their time has come."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._due: list[tuple[float, str, int, Job]] = []
        self._changed = trio.Event()

    def on_commit(self, commit: Commit) -> None:
        """A job that was queued for later is remembered."""
        if commit.job.state is JobState.QUEUED and commit.job.not_before is not None:
            self.add(commit.job)

    def add(self, job: Job) -> None:
        """Publish this job's ticket once its wall-clock time has come; at once if it has."""
        assert job.not_before is not None
        wait = max(0.0, (job.not_before - now()).total_seconds())
        heapq.heappush(self._due, (trio.current_time() + wait, job.id, job.generation, job))
        self._changed.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Wait for the next one, until cancelled."""
        task_status.started()
        while True:
            self._changed = trio.Event()
            with trio.move_on_at(self._due[0][0] if self._due else float("inf")):
                await self._changed.wait()
            while self._due and self._due[0][0] <= trio.current_time():
                # A job that was canceled meanwhile answers for itself: its ticket is obsolete.
                self._relay.send(ticket(heapq.heappop(self._due)[3]))


class Reconciler:
    """Publishes again what a wiped broker has forgotten. A ticket too many is harmless, one too few is a lost job."""

    def __init__(
        self,
        store: Store,
        broker: Broker,
        relay: Relay,
        intake: Intake,
        delays: Delays,
        chronicle: Chronicle,
        aside: Collection[str] = (),
    ) -> None:
        self._store = store
        self._broker = broker
        self._relay = relay
        self._intake = intake
        self._delays = delays
        self._chronicle = chronicle
        self._aside = aside

    async def start(self) -> None:
        """Remember who backs off, from the record; who may have been parked gets another ticket.

        To be called once, before jobs are taken.
        """
        after = ""
        while page := await self._store.queued(after=after):
            for job in page:
                if job.not_before is not None:
                    self._delays.add(job)
                elif wanted_by(job).families:
                    self._relay.send(ticket(job))
            after = page[-1].id

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look after every reconnection, and now and then, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_broker, nursery)
            task_status.started()
            async for _ in every(LOOK_SECONDS):
                try:
                    await self._look_at_idle_lanes()
                except StorageFailed as error:
                    log.error("cannot compare record and queue", reason=str(error))

    async def _watch_broker(self, nursery: trio.Nursery) -> None:
        # Nothing may be awaited between the look and the wait: a change in between would never be heard of.
        connected: bool | None = None
        while True:
            status = self._broker.status()
            if status.connected != connected:
                if connected is not None and not status.connected:
                    self._chronicle.note("broker_lost", status.reason or "the broker is gone", subject=status.kind)
                    log.warning("broker lost", reason=status.reason)
                elif connected is False and status.connected:
                    self._chronicle.note("broker_back", "the broker is connected", subject=status.kind)
                    log.info("broker connected")
                connected = status.connected
                if connected:
                    nursery.start_soon(self._compare_depths)
            await self._broker.wait_changed()

    async def _compare_depths(self) -> None:
        """After a (re)connection: fewer messages than queued jobs means that some were lost with the broker's data."""
        try:
            for pool, queued in (await self._store.queued_by_pool()).items():
                depth = await self._broker.depth(execute_queue(pool))
                if depth is not None and depth < queued and self._relay.idle:
                    await self._publish_again(pool)
        except StorageFailed as error:
            log.error("cannot compare record and queue", reason=str(error))

    async def _look_at_idle_lanes(self) -> None:
        """A dispatcher that waits although jobs of its pool are queued: nothing in the queue stands for them."""
        if not self._broker.status().connected or not self._relay.idle:
            return
        settled = trio.current_time() - SETTLED_SECONDS
        idle = [
            lane.pool
            for lane in self._intake.lanes.values()
            if lane.idle_since is not None and lane.idle_since < settled and not lane.refused
        ]
        if not idle:
            return
        queued = await self._store.queued_by_pool()
        for pool in idle:
            waiting = queued.get(pool, 0) - self._intake.parking.count(pool)
            # Their tickets are there and nobody brings them: more of them, every few seconds, would mend nothing.
            if (
                waiting > 0
                and (depth := await self._broker.depth(execute_queue(pool))) is not None
                and depth >= waiting
            ):
                continue
            if waiting > 0:
                await self._publish_again(pool)

    async def _publish_again(self, pool: str) -> None:
        again, after, moment = 0, "", now()
        # Of this pool alone: where one of its jobs backs off this is asked every few seconds, however many others wait.
        while page := await self._store.queued(after=after, pool=pool):
            after = page[-1].id
            for job in page:
                waits = job.not_before is not None and job.not_before > moment
                fresh = (moment - job.queued_at).total_seconds() < SETTLED_SECONDS
                known = job.id in self._aside or job.id in self._intake.parking
                if not waits and not fresh and not known:
                    self._relay.send(ticket(job))
                    again += 1
        if again:
            log.warning("tickets published again", pool=pool, jobs=again)
            text = f"published {again} ticket{'' if again == 1 else 's'} of pool {pool} again"
            self._chronicle.note("tickets_again", text, subject=pool)
