"""`Statuses`: how a source's builds stand, told to its forge; on record until the last word was taken."""

import msgspec
import structlog
import trio

from blacktree.errors import NotFound, StorageFailed
from blacktree.job import Job, Origin
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.sources import Sources
from blacktree.orchestrator.statuswords import (
    Later,
    Refused,
    backoff_seconds,
    context_of,
    is_last,
    next_state,
)
from blacktree.orchestrator.teller import Teller
from blacktree.orchestrator.vaulted import Vaulted
from blacktree.storage.base import Commit, Store
from blacktree.strict import UNREADABLE

KIND = "commit-status"
PATIENCE_SECONDS = 3 * 86400.0
MOST_AT_ONCE = 4

log = structlog.get_logger()


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is on record for a job whose last status the forge has not taken: the last one it took.

    `begun`: the forge was asked to take a first one, and may have taken it whatever we know of that.
    """

    job_id: str
    sent: str = ""
    begun: bool = False


class _Told:
    """One job and what its forge knows of it."""

    def __init__(self, job: Job, origin: Origin, kept: Kept) -> None:
        self.job = job
        self.origin = origin
        self.kept = kept
        self.since = trio.current_time()
        self.failures = 0


Lane = tuple[str, str, str]
"""Source, commit, context: what is said there is said in order."""


class Statuses:
    """One lane for each source, commit and context; a few requests at once over all of them."""

    def __init__(
        self,
        store: Store,
        sources: Sources,
        vault: Vaulted,
        chronicle: Chronicle,
        *,
        public_url: str,
        first_seconds: float = 2.0,
        limit_seconds: float = 300.0,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._store = store
        self._sources = sources
        self._teller = Teller(sources, vault, public_url)
        self._chronicle = chronicle
        self._first_seconds = first_seconds
        self._limit_seconds = limit_seconds
        self._patience_seconds = patience_seconds
        self._told: dict[str, _Told] = {}
        self._lanes: dict[Lane, dict[str, _Told]] = {}
        self._busy: set[Lane] = set()
        self._at_once = trio.CapacityLimiter(MOST_AT_ONCE)
        self._nursery: trio.Nursery | None = None
        self.sent = 0
        self.given_up = 0

    @property
    def waiting(self) -> int:
        """Jobs whose last status is still to be told."""
        return len(self._told)

    async def expect(self, job: Job) -> None:
        """Tell the forge of this job from now on; on record when this returns. Twice is once."""
        origin = job.origin
        source = self._sources.find(origin.source) if origin else None
        if origin is None or source is None or not source.forge_token or job.id in self._told:
            return
        body = msgspec.json.encode(Kept(job_id=job.id))
        # An earlier life may have told something already.
        kept = _kept(job.id, await self._store.revise(KIND, job.id, lambda before: before or body))
        # It may have moved while that was written.
        self._enter(await self._store.get(job.id), origin, kept)

    def on_commit(self, commit: Commit) -> None:
        """A job has moved, or was made anew from one that a source had made."""
        told = self._told.get(commit.job.id)
        if told is None:
            if commit.previous is None and commit.job.retry_of is not None and self._nursery is not None:
                self._nursery.start_soon(self._expect_soon, commit.job)
            return
        told.job = commit.job
        if commit.previous is not commit.job.state:
            self._wake(told)

    async def _expect_soon(self, job: Job) -> None:
        try:
            await self.expect(job)
        except (StorageFailed, NotFound) as error:
            log.warning("commit status not on record", job=job.id, reason=str(error))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell, beginning with what an earlier life left; until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._load()
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            with trio.move_on_after(1, shield=True):
                await self._teller.aclose()

    async def _load(self) -> None:
        after = ""
        while page := await self._store.documents(KIND, after=after):
            after = page[-1][0]
            for name, body in page:
                try:
                    job = await self._store.get(name)
                except NotFound:
                    await self._store.revise(KIND, name, lambda before: None)
                    continue
                except StorageFailed as error:
                    if error.code != "state_damaged":
                        raise
                    log.error("commit status of a job that cannot be read", job=name, reason=str(error))
                    continue
                if job.origin is not None:
                    self._enter(job, job.origin, _kept(name, body))

    def _enter(self, job: Job, origin: Origin, kept: Kept) -> None:
        told = self._told[job.id] = _Told(job, origin, kept)
        self._lanes.setdefault(_lane_of(origin), {})[job.id] = told
        self._wake(told)

    def _wake(self, told: _Told) -> None:
        lane = _lane_of(told.origin)
        if lane not in self._busy and self._nursery is not None:
            self._busy.add(lane)
            self._nursery.start_soon(self._serve, lane, name=f"statuses {lane[0]}")

    async def _serve(self, lane: Lane) -> None:
        """Until nothing of this lane is to be told now. Nothing is awaited between the last look and leaving."""
        while (found := self._next(lane)) is not None:
            told, state = found
            try:
                if state:
                    async with self._at_once:
                        await self._tell(told, state)
                    self.sent += 1
                    told.failures = 0
                await self._note(lane, told, state)
            except Later as error:
                if trio.current_time() - told.since > self._patience_seconds:
                    await self._give_up(lane, told, f"not taken for {self._patience_seconds:.0f} s: {error}")
                    continue
                told.failures += 1
                pause = backoff_seconds(told.failures, self._first_seconds, self._limit_seconds)
                log.info("commit status comes later", source=lane[0], commit=lane[1], reason=str(error))
                await trio.sleep(min(max(pause, error.seconds), 3600.0))
            except Refused as error:
                await self._give_up(lane, told, str(error))
            except StorageFailed as error:
                log.error("commit status cannot be put on record", job=told.job.id, reason=str(error))
                await trio.sleep(self._first_seconds)
            except Exception as error:
                # The edge of one status: whatever a forge answers, the farm goes on.
                log.exception("status_failed", source=lane[0], job=told.job.id)
                await self._give_up(lane, told, f"{type(error).__name__}: {error}")
        self._busy.discard(lane)
        if not self._lanes.get(lane):
            self._lanes.pop(lane, None)

    def _next(self, lane: Lane) -> tuple[_Told, str] | None:
        """The oldest job here of which something is to be told, and what; an empty text: nothing more."""
        for told in sorted(self._lanes.get(lane, {}).values(), key=lambda each: (each.job.created_at, each.job.id)):
            if (state := next_state(told.kept.sent, told.job, begun=told.kept.begun)) is not None:
                return told, state
        return None

    async def _note(self, lane: Lane, told: _Told, state: str) -> None:
        if not state or is_last(state):
            await self._store.revise(KIND, told.job.id, lambda before: None)
            self._drop(lane, told)
            return
        await self._keep(told, Kept(job_id=told.job.id, sent=state, begun=True))

    async def _keep(self, told: _Told, kept: Kept) -> None:
        told.kept = kept
        body = msgspec.json.encode(kept)
        await self._store.revise(KIND, told.job.id, lambda before: body)

    async def _give_up(self, lane: Lane, told: _Told, why: str) -> None:
        self.given_up += 1
        text = f"{lane[0]}: the forge was not told how job {told.job.id} stands: {why}"
        self._chronicle.note("status_refused", text, subject=lane[0])
        log.warning("commit status given up", source=lane[0], job=told.job.id, reason=why)
        self._drop(lane, told)
        try:
            await self._store.revise(KIND, told.job.id, lambda before: None)
        except StorageFailed as error:
            log.error("commit status cannot be put on record", job=told.job.id, reason=str(error))

    def _drop(self, lane: Lane, told: _Told) -> None:
        self._told.pop(told.job.id, None)
        self._lanes.get(lane, {}).pop(told.job.id, None)

    async def _tell(self, told: _Told, state: str) -> None:
        call = await self._teller.call(told.job, told.origin, state)
        if not told.kept.begun:
            # Ended between its taking it and our knowing, the next life must not pass the job over.
            await self._keep(told, Kept(job_id=told.job.id, begun=True))
        await self._teller.post(call)


def _kept(job_id: str, body: bytes | None) -> Kept:
    """What was told already; of a damaged record that it may have been anything, so that it is told again."""
    try:
        return msgspec.json.decode(body or b"", type=Kept)
    except UNREADABLE:
        return Kept(job_id=job_id, begun=True)


def _lane_of(origin: Origin) -> Lane:
    return (origin.source, origin.commit, context_of(origin))
