"""`HookWork`: what answered webhooks ask for, done in order for each branch: jobs, and the end of older ones."""

from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

import msgspec
import structlog
import trio

from blacktree.clock import now
from blacktree.concurrency.every import every
from blacktree.errors import BlacktreeError, Conflict, StorageFailed, Unavailable
from blacktree.job import Job, Origin
from blacktree.orchestrator import moves
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.deliveries import Deliveries, Entry
from blacktree.orchestrator.forges.base import PullRequest, Pushed
from blacktree.orchestrator.groups import Groups, Key, group_of, overtaken
from blacktree.orchestrator.matching import job_key, origin_of, superseded_by
from blacktree.orchestrator.sources import Sources
from blacktree.source import job_spec
from blacktree.spec import JobSpec
from blacktree.storage.base import JobTable

log = structlog.get_logger()

AGAIN_SECONDS = 1.0
HOUSEKEEPING_SECONDS = 600.0
LEAVING_SECONDS = 0.3

T = TypeVar("T")
Submit = Callable[[JobSpec, Origin, datetime | None], Awaitable[tuple[Job, bool]]]
"""See `Desk.submit_from`."""


class Expecter(Protocol):
    """Who tells the forge how a build stands."""

    async def expect(self, job: Job) -> None:
        """From now on; on record when this returns."""
        ...


class _Work:
    """A delivery whose work is not done: one piece for each source."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.left = len(entry.sources)
        self.outcome: list[str] = []


class HookWork:
    """Pieces of one branch (tag, pull request) of a source go in order, others beside each other."""

    def __init__(
        self,
        jobs: JobTable,
        sources: Sources,
        deliveries: Deliveries,
        groups: Groups,
        submit: Submit,
        statuses: Expecter,
        chronicle: Chronicle,
        rules: moves.Rules,
        *,
        settle_seconds: float,
    ) -> None:
        self._jobs = jobs
        self._sources = sources
        self._deliveries = deliveries
        self._groups = groups
        self._submit = submit
        self._statuses = statuses
        self._chronicle = chronicle
        self._rules = rules
        self._settle_seconds = settle_seconds
        self._lanes: dict[Key, deque[_Work]] = {}
        self._nursery: trio.Nursery | None = None
        self._through: set[trio.CancelScope] = set()
        self.waiting = 0
        """How many deliveries were answered and are not done."""

    @property
    def open(self) -> bool:
        """Whether it takes work: not before `run`, nor after."""
        return self._nursery is not None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do the work of what was answered, beginning with what an earlier life left; until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for entry in await self._deliveries.load():
                    self.begin(entry)
                task_status.started()
                try:
                    async for _ in every(HOUSEKEEPING_SECONDS):
                        await self._deliveries.forget()
                finally:
                    self._nursery = None
                    for scope in self._through:
                        scope.deadline = min(scope.deadline, trio.current_time() + LEAVING_SECONDS)
        finally:
            self._nursery = None

    async def see_through(self, function: Callable[[], Awaitable[T]], *, seconds: float) -> T:
        """Run it to its end even if the caller is cancelled meanwhile; our leaving gives it `LEAVING_SECONDS`.

        Raises whatever it raises, and `Unavailable` if it takes longer, or we leave."""
        if self._nursery is None:
            raise Unavailable("no webhooks are taken now", code="too_many_deliveries")
        found: list[T] = []
        failed: list[Exception] = []
        done = trio.Event()

        scope = trio.CancelScope(deadline=trio.current_time() + seconds, shield=True)
        self._through.add(scope)

        async def run() -> None:
            try:
                with scope:
                    found.append(await function())
            except Exception as error:
                # The caller's, not the farm's.
                failed.append(error)
            finally:
                self._through.discard(scope)
                done.set()

        self._nursery.start_soon(run)
        await done.wait()
        if failed:
            raise failed[0]
        if not found:
            raise Unavailable("the store takes too long", code="store_slow")
        return found[0]

    def begin(self, entry: Entry) -> None:
        """Do its work soon. Never waits."""
        if self._nursery is None:
            # We are leaving: it is on record, and the next start does it.
            return
        assert isinstance(entry.event, Pushed | PullRequest)
        work = _Work(entry)
        self.waiting += 1
        for name in entry.sources:
            key = (name, _group(entry.event))
            if key in self._lanes:
                self._lanes[key].append(work)
            else:
                self._lanes[key] = deque([work])
                self._nursery.start_soon(self._lane, key, name=f"webhooks {key[0]} {key[1]}"[:100])

    async def _lane(self, key: Key) -> None:
        lane = self._lanes[key]
        while lane:
            work = lane.popleft()
            work.outcome.append(f"{key[0]}: {await self._insist(key, work.entry)}")
            work.left -= 1
            if work.left == 0 and self._nursery is not None:
                # Forgetting what it said need not hold up the next one.
                self._nursery.start_soon(self._close, work)
        del self._lanes[key]

    async def _close(self, work: _Work) -> None:
        while True:
            try:
                await self._deliveries.done(work.entry, work.outcome)
                break
            except StorageFailed as error:
                log.error("a delivery's end cannot be put on record", reason=str(error))
                await trio.sleep(AGAIN_SECONDS)
        self.waiting -= 1

    async def _insist(self, key: Key, entry: Entry) -> str:
        """What came of it, as a sentence. Waits out a store that cannot, and a farm that takes no jobs now."""
        while True:
            try:
                return await self._do(key, entry)
            except Unavailable as error:
                if not error.again:
                    return self._refused(key, entry, error)
                await trio.sleep(AGAIN_SECONDS)
            except Conflict as error:
                return f"was done before: {error.message}"
            except BlacktreeError as error:
                return self._refused(key, entry, error)
            except Exception as error:
                # The edge of one delivery: it would end the farm at each start again.
                log.exception("webhook_failed", source=key[0], delivery=entry.delivery)
                return self._refused(key, entry, error)

    def _refused(self, key: Key, entry: Entry, error: Exception) -> str:
        self._chronicle.note("webhook_refused", f"delivery {entry.delivery} made no job: {error}", subject=key[0])
        log.warning("webhook made no job", source=key[0], delivery=entry.delivery, reason=str(error))
        return f"refused: {error}"

    async def _do(self, key: Key, entry: Entry) -> str:
        event = entry.event
        source = self._sources.find(key[0])
        if source is None or not isinstance(event, Pushed | PullRequest):
            return "the source is gone"
        if isinstance(event, PullRequest) and event.closed:
            return await self._closed(key, event)
        head = self._groups.head(key)
        if source.supersede and overtaken(event, head):
            assert head is not None
            return f"overtaken by {head.commit[:12]}"
        origin = origin_of(source, event, entry.delivery)
        spec = msgspec.structs.replace(
            job_spec(source, origin), idempotency_key=job_key(source, entry.identity, origin)
        )
        wait = None
        if source.supersede:
            if (same := self._same(key, origin, spec)) is not None:
                return f"job {same.id} builds this commit already"
            # One change soon after another: the next may follow, and a build begun for each would be in vain.
            if head is not None and trio.current_time() < head.seen + self._settle_seconds:
                wait = now() + timedelta(seconds=self._settle_seconds)
        job, new = await self._submit(spec, origin, wait)
        self._groups.advance(key, event)
        if source.supersede:
            for older in self._groups.older(key, job):
                await self._jobs.change(older.id, moves.cancel(superseded_by(origin, job.id), self._rules))
        await self._statuses.expect(job)
        return f"{'made' if new else 'had made'} job {job.id}"

    def _same(self, key: Key, origin: Origin, spec: JobSpec) -> Job | None:
        jobs = self._groups.unfinished(key)
        newest = jobs[-1] if jobs else None
        if newest is None or newest.origin is None or newest.cancel_reason is not None:
            return None
        own = newest.spec.idempotency_key == spec.idempotency_key
        return newest if newest.origin.commit == origin.commit and newest.spec.same_as(spec) and not own else None

    async def _closed(self, key: Key, event: PullRequest) -> str:
        ended = self._groups.queued(key)
        for job in ended:
            await self._jobs.change(job.id, moves.cancel(f"pull request {event.number} was closed", self._rules))
        return f"canceled {len(ended)} queued jobs"


def _group(event: Pushed | PullRequest) -> str:
    if isinstance(event, PullRequest):
        return group_of(Origin(source="", pull_request=event.number))
    return group_of(Origin(source="", branch=event.branch, tag=event.tag))
