"""`Statuses`: how a source's builds stand, told to its forge; on record until the last word was taken."""

import random
import ssl

import httpx
import msgspec
import structlog
import trio

from blacktree.clock import now
from blacktree.concurrency.threads import in_thread
from blacktree.errors import BlacktreeError, NotFound, StorageFailed
from blacktree.job import Job, JobState, Origin
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.forges import FORGES
from blacktree.orchestrator.forges.base import Report, StatusCall
from blacktree.orchestrator.sources import Sources
from blacktree.orchestrator.vaulted import Vaulted
from blacktree.secret import SecretKind
from blacktree.storage.base import Commit, Store

KIND = "commit-status"
PATIENCE_SECONDS = 3 * 86400.0
ANSWER_SECONDS = 15.0
MOST_AT_ONCE = 4
MOST_ANSWER_BYTES = 64 * 1024

log = structlog.get_logger()

_S = JobState
_ENDS = {
    _S.SUCCEEDED: ("success", "built"),
    _S.FAILED: ("failure", "failed"),
    _S.CANCELED: ("canceled", "canceled"),
    _S.TIMED_OUT: ("error", "took too long"),
    _S.LOST: ("error", "lost with its worker"),
}


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is on record for a job whose last status the forge has not taken: the last one it took."""

    job_id: str
    sent: str = ""


class _Told:
    """One job and what its forge knows of it."""

    def __init__(self, job: Job, origin: Origin, sent: str = "") -> None:
        self.job = job
        self.origin = origin
        self.sent = sent
        self.since = trio.current_time()
        self.failures = 0


Lane = tuple[str, str, str]
"""Source, commit, context: what is said there is said in order."""


class Later(Exception):
    """The forge does not take it now; `seconds`: when it asked us to come again."""

    def __init__(self, why: str, seconds: float = 0.0) -> None:
        super().__init__(why)
        self.seconds = seconds


class Refused(Exception):
    """The forge will never take it."""


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
        self._vault = vault
        self._chronicle = chronicle
        self._public_url = public_url.rstrip("/")
        self._first_seconds = first_seconds
        self._limit_seconds = limit_seconds
        self._patience_seconds = patience_seconds
        self._told: dict[str, _Told] = {}
        self._lanes: dict[Lane, dict[str, _Told]] = {}
        self._busy: set[Lane] = set()
        self._at_once = trio.CapacityLimiter(MOST_AT_ONCE)
        self._nursery: trio.Nursery | None = None
        self._client: httpx.AsyncClient | None = None
        self._opening = trio.Lock()
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
        kept = await self._store.revise(KIND, job.id, lambda before: before or body)
        sent = msgspec.json.decode(kept, type=Kept).sent if kept else ""
        # It may have moved while that was written.
        self._enter(await self._store.get(job.id), origin, sent)

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
            if self._client is not None:
                with trio.move_on_after(1, shield=True):
                    await self._client.aclose()

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
                if job.origin is not None:
                    self._enter(job, job.origin, msgspec.json.decode(body, type=Kept).sent)

    def _enter(self, job: Job, origin: Origin, sent: str) -> None:
        told = self._told[job.id] = _Told(job, origin, sent)
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
        self._busy.discard(lane)
        if not self._lanes.get(lane):
            self._lanes.pop(lane, None)

    def _next(self, lane: Lane) -> tuple[_Told, str] | None:
        """The oldest job here of which something is to be told, and what; an empty text: nothing more."""
        for told in sorted(self._lanes.get(lane, {}).values(), key=lambda each: (each.job.created_at, each.job.id)):
            if (state := next_state(told.sent, told.job)) is not None:
                return told, state
        return None

    async def _note(self, lane: Lane, told: _Told, state: str) -> None:
        if not state or is_last(state):
            await self._store.revise(KIND, told.job.id, lambda before: None)
            self._drop(lane, told)
            return
        told.sent = state
        body = msgspec.json.encode(Kept(job_id=told.job.id, sent=state))
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
        call = await self._call(told, state)
        client = await self._opened()
        try:
            with trio.fail_after(2 * ANSWER_SECONDS):
                async with client.stream("POST", call.url, headers=call.headers, json=call.body) as answer:
                    text = await _beginning(answer)
        except trio.TooSlowError:
            raise Later("the forge took too long to answer") from None
        except httpx.InvalidURL as error:
            raise Refused(f"{call.url} is no address: {error}") from None
        except httpx.HTTPError as error:
            raise Later(f"{type(error).__name__}: {error}") from None
        judge(answer.status_code, answer.headers, text)

    async def _opened(self) -> httpx.AsyncClient:
        """The client, made when it is first needed: reading the certificates takes a while."""
        async with self._opening:
            if self._client is None:
                context = await in_thread(ssl.create_default_context)
                # A redirect is not followed: the token is for this host.
                self._client = httpx.AsyncClient(verify=context, timeout=ANSWER_SECONDS, follow_redirects=False)
            return self._client

    async def _call(self, told: _Told, state: str) -> StatusCall:
        source = self._sources.find(told.origin.source)
        if source is None or not source.forge_token:
            raise Refused("its source is gone, or names no forge token any more")
        try:
            token = await self._vault.value(
                source.forge_token, kind=SecretKind.FORGE, source=source.name, repository=source.repository
            )
        except BlacktreeError as error:
            raise Later(str(error)) from None
        if token is None:
            raise Refused(f"the vault has no forge secret `{source.forge_token}` for this source")
        report = Report(
            state=state,
            description=describe(told.job, state),
            context=context_of(told.origin),
            target_url=f"{self._public_url}/api/v1/jobs/{told.job.id}/log" if self._public_url else "",
        )
        try:
            return FORGES[source.forge].status(source, told.origin, report, token.decode("ascii").strip())
        except (UnicodeDecodeError, BlacktreeError) as error:
            raise Refused(f"no request can be made of it: {error}") from None


async def _beginning(answer: httpx.Response) -> str:
    """What an answer says, as far as anybody reads it."""
    found = b""
    async for piece in answer.aiter_bytes(8192):
        found += piece
        if len(found) > MOST_ANSWER_BYTES:
            break
    return found[:MOST_ANSWER_BYTES].decode("utf-8", "replace")


def _lane_of(origin: Origin) -> Lane:
    return (origin.source, origin.commit, context_of(origin))


def context_of(origin: Origin) -> str:
    """What the status is called at the commit: builds of a branch and of a pull request stand beside each other."""
    return f"blacktree/{origin.source}" + ("/pull-request" if origin.pull_request is not None else "")


def next_state(sent: str, job: Job) -> str | None:
    """What the forge is to be told next of this job; None: nothing now; an empty text: nothing any more.

    The first word is `pending`, also about a job that has ended meanwhile; only one that made way for a newer commit
    before anything was said is passed over.
    """
    if not sent:
        return "" if job.state is _S.CANCELED and job.started_at is None else "pending"
    if job.ended:
        return _ENDS[job.state][0]
    if sent == "pending" and job.state in (_S.RUNNING, _S.CANCELING):
        return "running"
    return None


def is_last(state: str) -> bool:
    """Whether nothing follows this one."""
    return state not in ("pending", "running")


def describe(job: Job, state: str) -> str:
    """A few words for the forge's page."""
    if state == "pending":
        return "waiting for a worker"
    if state == "running":
        return f"building on {job.worker_id}" if job.worker_id else "building"
    words = _ENDS[job.state][1]
    if job.state is _S.CANCELED:
        return f"{words}: {job.cancel_reason}" if job.cancel_reason else words
    if job.state is _S.SUCCEEDED:
        seconds = ((job.finished_at or now()) - (job.started_at or job.created_at)).total_seconds()
        return f"{words} in {seconds:.0f} s"
    return f"{words}: {job.error.message}" if job.error else words


def judge(status: int, headers: httpx.Headers, text: str) -> None:
    """Nothing if the forge has taken it. Raises `Later` or `Refused`."""
    if 200 <= status < 300:
        return
    said = f"HTTP {status}: {' '.join(text.split())[:300]}"
    # GitLab: the commit bears this state already.
    if status == 400 and "Cannot transition status" in text:
        return
    limited = status == 403 and ("retry-after" in headers or headers.get("x-ratelimit-remaining") == "0")
    if status in (408, 425, 429) or status >= 500 or limited:
        raise Later(said, _retry_after(headers))
    raise Refused(said)


def _retry_after(headers: httpx.Headers) -> float:
    text = headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0


def backoff_seconds(failures: int, first: float, limit: float) -> float:
    """Exponential, with jitter: between half and all of first * 2^(failures-1)."""
    return min(limit, first * float(1 << min(failures - 1, 30))) * random.uniform(0.5, 1.0)
