"""`Hooks`: webhooks are checked, put on record and answered; then their work is done, in order for each branch."""

import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec
import structlog
import trio

from blacktree.clock import now
from blacktree.concurrency.every import every
from blacktree.concurrency.threads import in_loose_thread
from blacktree.errors import BlacktreeError, Conflict, NotAllowed, NotFound, StorageFailed, Unavailable
from blacktree.job import Job, Origin
from blacktree.orchestrator import moves
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.deliveries import Deliveries, Entry, keys_of
from blacktree.orchestrator.forges import FORGES
from blacktree.orchestrator.forges.base import Event, ForgeAdapter, Nothing, PullRequest, Pushed, payload
from blacktree.orchestrator.forges.signatures import wrong
from blacktree.orchestrator.groups import Groups, Key, group_of, overtaken
from blacktree.orchestrator.hookcontrol import Delivery, Receipt
from blacktree.orchestrator.matching import choose, job_key, origin_of, superseded_by
from blacktree.orchestrator.sources import Sources
from blacktree.orchestrator.vaulted import Vaulted
from blacktree.secret import SecretKind
from blacktree.source import Source, job_spec
from blacktree.spec import JobSpec
from blacktree.storage.base import JobTable

log = structlog.get_logger()

MOST_WAITING = 20_000
MOST_SECRETS = 64
LARGE_BYTES = 256 * 1024
AGAIN_SECONDS = 1.0
HOUSEKEEPING_SECONDS = 600.0


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


class Hooks:
    """See `HookControl`. Pieces of one branch (tag, pull request) of a source go in order, others beside each other."""

    def __init__(
        self,
        jobs: JobTable,
        sources: Sources,
        deliveries: Deliveries,
        groups: Groups,
        vault: Vaulted,
        submit: Submit,
        statuses: Expecter,
        chronicle: Chronicle,
        rules: moves.Rules,
        *,
        settle_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._jobs = jobs
        self._sources = sources
        self._deliveries = deliveries
        self._groups = groups
        self._vault = vault
        self._submit = submit
        self._statuses = statuses
        self._chronicle = chronicle
        self._rules = rules
        self._settle_seconds = settle_seconds
        self._clock = clock
        self._lanes: dict[Key, deque[_Work]] = {}
        self._nursery: trio.Nursery | None = None
        self._waiting = 0
        self.counts: dict[str, int] = {}

    # Answering

    async def receive(self, delivery: Delivery) -> Receipt:
        """See `HookControl.receive`."""
        try:
            receipt = await self._receive(delivery)
        except BlacktreeError as error:
            self.counts[error.code] = self.counts.get(error.code, 0) + 1
            log.info("webhook refused", forge=delivery.forge[:20], code=error.code)
            raise
        self.counts[receipt.status] = self.counts.get(receipt.status, 0) + 1
        log.debug("webhook", forge=delivery.forge, status=receipt.status, reason=receipt.reason)
        return receipt

    async def _receive(self, delivery: Delivery) -> Receipt:
        adapter = FORGES.get(delivery.forge)
        if adapter is None:
            raise NotFound(f"there are no webhooks of {delivery.forge[:40]!r}", advice=f"known: {', '.join(FORGES)}")
        sources = await self._proven(adapter, delivery)
        named = adapter.delivery_id(delivery.headers)
        signed = delivery.forge != "gitlab"
        keys = keys_of(delivery.forge, named, delivery.body, body_is_signed=signed)
        if (earlier := await self._deliveries.earlier(keys)) is not None:
            return Receipt(status="known", delivery=earlier, reason="this delivery came before; nothing was changed")
        event = await self._read(adapter, delivery)
        if isinstance(event, Nothing):
            return Receipt(status="pong" if event.ping else "ignored", reason=event.reason)
        chosen, reason = choose(sources, event)
        if not chosen:
            return Receipt(status="ignored", reason=reason)
        if self._waiting >= MOST_WAITING or self._nursery is None:
            raise Unavailable(f"{self._waiting} webhooks wait already", code="too_many_deliveries")
        # Between the last look and this there may have been others.
        if (earlier := await self._deliveries.earlier(keys)) is not None:
            return Receipt(status="known", delivery=earlier, reason="this delivery came before; nothing was changed")
        names = [source.name for source in chosen]
        entry = await self._deliveries.enter(
            forge=delivery.forge,
            delivery=named[:200],
            identity=keys[0],
            keys=keys,
            sources=names,
            event=_trimmed(event),
        )
        self._begin(entry)
        return Receipt(status="accepted", delivery=entry.name, sources=names)

    async def _proven(self, adapter: ForgeAdapter, delivery: Delivery) -> list[Source]:
        """The sources whose secret has signed this. Raises `NotAllowed`; nothing of the body is looked at before."""
        by_value: dict[bytes, list[Source]] = {}
        for source in self._sources.of(delivery.forge, delivery.source):
            assert source.webhook_secret is not None
            try:
                value = await self._vault.value(
                    source.webhook_secret, kind=SecretKind.WEBHOOK, source=source.name, repository=source.repository
                )
            except BlacktreeError as error:
                log.warning("webhook secret not usable", source=source.name, reason=str(error))
                continue
            if value:
                by_value.setdefault(value, []).append(source)
        if len(by_value) > MOST_SECRETS:
            raise NotAllowed(
                f"this farm has more than {MOST_SECRETS} webhook secrets",
                code="source_required",
                advice=f"put the source's name at the end of the webhook's address: …/webhooks/{delivery.forge}/NAME",
            )
        moment = self._clock()
        proven: list[Source] = []
        # An unknown source and a wrong signature look the same, and take as long.
        for value in by_value or {secrets.token_bytes(32): []}:
            if await _off_loop(len(delivery.body), adapter.signed, delivery.headers, delivery.body, value, moment):
                proven += by_value.get(value, [])
        if not proven:
            raise wrong()
        return proven

    async def _read(self, adapter: ForgeAdapter, delivery: Delivery) -> Event:
        kind = delivery.headers.get("content-type", "")
        event = adapter.event_name(delivery.headers)

        def read() -> Event:
            return adapter.parse(event, payload(delivery.body, kind))

        found: Event = await _off_loop(len(delivery.body), read)
        return found

    # Working

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do the work of what was answered, beginning with what an earlier life left; until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for entry in await self._deliveries.load():
                    self._begin(entry)
                task_status.started()
                async for _ in every(HOUSEKEEPING_SECONDS):
                    await self._deliveries.forget()
        finally:
            self._nursery = None

    @property
    def waiting(self) -> int:
        """How many deliveries were answered and are not done."""
        return self._waiting

    def figures(self) -> dict[str, Any]:
        """For `Control.figures`."""
        return {"webhooks_total{result}": dict(self.counts), "webhooks_waiting": self._waiting}

    def _begin(self, entry: Entry) -> None:
        if self._nursery is None:
            # We are leaving: it is on record, and the next start does it.
            return
        assert isinstance(entry.event, Pushed | PullRequest)
        work = _Work(entry)
        self._waiting += 1
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
        self._waiting -= 1

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

    def _refused(self, key: Key, entry: Entry, error: BlacktreeError) -> str:
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


def _trimmed(event: Pushed | PullRequest) -> Pushed | PullRequest:
    """Its message has been looked at, and may be long."""
    return msgspec.structs.replace(event, message="")


async def _off_loop(size: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Megabytes are not hashed and parsed on the loop's time."""
    if size < LARGE_BYTES:
        return function(*arguments)
    return await in_loose_thread(lambda: function(*arguments))
