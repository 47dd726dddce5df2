"""`Desk`: the answer to what the doors ask (the promise is `orchestrator.control.Control`)."""

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from blacktree.address import parse_address
from blacktree.broker.base import Broker
from blacktree.clock import new_id, now, rfc3339
from blacktree.errors import BadRequest, Conflict, NotFound, Unavailable
from blacktree.event import FarmEvent, Record, StateChanged
from blacktree.job import Job, JobState, Origin
from blacktree.orchestrator import moves
from blacktree.orchestrator.auditcontrol import AuditControl
from blacktree.orchestrator.census import ordinal
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.clonetokens import CloneTokens
from blacktree.orchestrator.control import Found, JobView, QueueView, Readiness, Slice, WorkerView
from blacktree.orchestrator.deploymentdesk import DeploymentDesk
from blacktree.orchestrator.hookcontrol import HookControl, SourceControl
from blacktree.orchestrator.intake import Intake
from blacktree.orchestrator.journal import Journal, Reader, stored
from blacktree.orchestrator.notifycontrol import NotifyControl
from blacktree.orchestrator.secretcontrol import SecretControl
from blacktree.orchestrator.ticket import Submission
from blacktree.orchestrator.tokencontrol import TokenControl
from blacktree.orchestrator.ways import Wanted, wanted_by
from blacktree.orchestrator.workers import Workers, view
from blacktree.source import restricted
from blacktree.spec import JobSpec
from blacktree.storage.base import Decide, Store

MAX_LIMIT = 10_000
MAX_RECORD_BYTES = 1 << 20  # for who looks through a whole log: fewer ways to the store than small pieces


Why = Callable[[str, Wanted], tuple[str, bool]]


class Desk:
    """Submits, answers, cancels and shows. Holds no state of its own."""

    def __init__(
        self,
        store: Store,
        broker: Broker,
        workers: Workers,
        journal: Journal,
        intake: Intake,
        chronicle: Chronicle,
        rules: moves.Rules,
        clone_tokens: CloneTokens,
        *,
        allow_local_sources: bool,
        readiness: Callable[[], Readiness],
        figures: Callable[[], dict[str, Any]],
        secrets: SecretControl,
        tokens: TokenControl,
        audit: AuditControl,
        sources: SourceControl,
        hooks: HookControl,
        notify: NotifyControl,
        deployments: DeploymentDesk,
        hope: Callable[[str], str] = lambda pool: "",
        trace: Callable[[JobSpec], str | None] = lambda spec: spec.traceparent,
    ) -> None:
        self._store = store
        self._broker = broker
        self._workers = workers
        self._journal = journal
        self._intake = intake
        self._chronicle = chronicle
        self._rules = rules
        self._clone_tokens = clone_tokens
        self._allow_local_sources = allow_local_sources
        self.readiness = readiness
        self.figures = figures
        self.secrets = secrets
        self.tokens = tokens
        self.audit = audit
        self.sources = sources
        self.hooks = hooks
        self.notify = notify
        self.deployments = deployments
        self._deployments = deployments.kept
        self._hope = hope
        self._trace = trace

    # Submitting

    async def submit(self, spec: JobSpec, *, key: str | None = None, actor: str = "") -> tuple[JobView, bool]:
        """See `Control.submit`."""
        if key is not None:
            if not 1 <= len(key) <= 256:
                raise BadRequest("Idempotency-Key: must have 1 to 256 characters", path="idempotency_key")
            if spec.idempotency_key not in (None, key):
                raise BadRequest(
                    "the Idempotency-Key header and spec.idempotency_key differ", path="spec.idempotency_key"
                )
            spec = msgspec.structs.replace(spec, idempotency_key=key)
        job, new = await self._create(spec, id=new_id(), submitted_by=actor)
        return await self._view(job), new

    async def submit_from(self, spec: JobSpec, origin: Origin, not_before: datetime | None = None) -> tuple[Job, bool]:
        """A job that a declared source asks for; True if it is new. Its ticket waits for `not_before`, if given."""
        return await self._create(spec, id=new_id(), origin=origin, not_before=not_before)

    async def accept(self, submission: Submission, ticket: bool, then: Decide | None) -> Job:
        """A job that came straight from the queue; unless it needs a `ticket`, its message stands for the first one.

        `then` is the first change of it, in the same transaction.
        """
        # Before its job: a crash between the two leaves a token without a job, never a job without its token.
        kept = await self._clone_tokens.keep(submission)
        try:
            job, _ = await self._create(submission.spec, id=submission.id, ticket=ticket, then=then)
        except (BadRequest, Conflict):
            if kept:
                await self._clone_tokens.forget(submission.id)
            raise
        return job

    async def retry(self, job_id: str, *, actor: str = "") -> JobView:
        """See `Control.retry`."""
        old = await self._store.get(_job_id(job_id))
        if not old.ended:
            raise Conflict(
                f"job {job_id} is {old.state}", code="not_ended", advice="wait for its end, or cancel it first"
            )
        if old.part_of is not None:
            advice = f"`blacktree retry {old.part_of}` builds all of it again"
            raise Conflict(f"job {job_id} is a part of job {old.part_of}", code="is_a_part", advice=advice)
        spec = msgspec.structs.replace(old.spec, idempotency_key=None, traceparent=None)
        job, _ = await self._create(
            spec, id=new_id(), commit=old.commit, retry_of=old.id, origin=old.origin, submitted_by=actor
        )
        return await self._view(job)

    async def _create(
        self,
        spec: JobSpec,
        *,
        id: str,
        ticket: bool = True,
        commit: str | None = None,
        retry_of: str | None = None,
        origin: Origin | None = None,
        submitted_by: str = "",
        not_before: datetime | None = None,
        then: Decide | None = None,
    ) -> tuple[Job, bool]:
        if (state := self.readiness().state) in ("draining", "starting"):
            raise Unavailable(f"the farm is {state}", code=state, advice="submit again in a moment")
        parse_address(spec.repository, allow_local=self._allow_local_sources)
        if spec.pool not in self._intake.lanes and self._intake.full:
            raise BadRequest(
                f"spec.pool: this farm has {len(self._intake.lanes)} pools already and opens no further one",
                path="spec.pool",
                advice="use an existing pool, or raise `orchestrator.maximum_pools`",
            )
        time = now()
        job = Job(
            id=id,
            state=JobState.QUEUED,
            # Whoever made the spec: what came from a fork gets no more than its source allows.
            spec=restricted(spec, origin),
            created_at=time,
            queued_at=time,
            commit=commit,
            retry_of=retry_of,
            origin=origin,
            submitted_by=submitted_by,
            not_before=not_before,
            trace=self._trace(spec),
        )
        records: list[Record] = [StateChanged(time, 0, "", JobState.QUEUED)]
        told = moves.announce(job, records, self._rules)
        if ticket and not_before is None:
            told.append(moves.ticket(job))
        async with self._deployments.expectations.expecting(job):
            done = await self._store.create(job, records, told, then=then)
        self._intake.ensure(spec.pool)
        return done.job, done.changed

    # Asking

    async def job(self, job_id: str) -> JobView:
        """See `Control.job`."""
        return await self._view(await self._store.get(_job_id(job_id)), place=True)

    async def jobs(self, states: Collection[JobState], *, limit: int = 50, cursor: str | None = None) -> Found:
        """See `Control.jobs`."""
        page = await self._store.find(states, limit=max(1, min(limit, 500)), cursor=cursor)
        # Most that wait do so for the same reason.
        why = lru_cache(None)(self._why)
        return Found(jobs=[await self._view(job, why) for job in page.jobs], cursor=page.cursor)

    async def _view(self, job: Job, why: Why | None = None, *, place: bool = False) -> JobView:
        if job.gathers:
            return JobView(job=job, waiting=await self._waiting_parts(job))
        if job.state is not JobState.QUEUED:
            return JobView(job=job)
        return JobView(job=job, waiting=await self._waiting(job, why or self._why, place))

    async def _waiting_parts(self, whole: Job) -> str | None:
        """Which of its parts waits, and why."""
        for part in whole.parts:
            try:
                job = await self._store.get(part.job_id)
            except NotFound:
                continue
            if job.state is JobState.QUEUED:
                return f"{part.platform}: {await self._waiting(job, self._why, False)}"
        return None

    async def _waiting(self, job: Job, why: Why, place: bool) -> str:
        if job.not_before is not None and job.not_before > now():
            return f"backing off until {rfc3339(job.not_before)[:19]}Z"
        reason, in_line = why(job.spec.pool, wanted_by(job))
        if not place or not in_line:
            return reason
        return f"{reason}, {ordinal(await self._store.ahead(job) + 1)} in line"

    def _why(self, pool: str, want: Wanted) -> tuple[str, bool]:
        """Why no job of this pool that asks for this is taken now; and whether there is a line to stand in."""
        if self.readiness().state == "draining":
            return "the farm is shutting down; the job stays queued", False
        status = self._broker.status()
        if not status.connected:
            return f"the broker is away: {status.reason}", False
        way = self._workers.way(pool, want)
        reason = self._workers.census.why_waiting(pool, way.missing or way.needs)
        if reason and (hope := self._hope(pool)):
            reason = f"{reason}: {hope}"
        return reason or "about to be handed to a worker", True

    # Cancelling

    async def cancel(self, job_id: str, *, reason: str = "", actor: str = "") -> JobView:
        """See `Control.cancel`."""
        said = (reason or "canceled").strip()[:1000]
        # From here on the job's own task sees to it, whether the caller stays or not.
        await self._store.change(_job_id(job_id), moves.cancel(said, self._rules))
        return JobView(job=await self._journal.wait_ended(job_id))

    # Reading

    async def events(self, job_id: str, from_seq: int, limit: int) -> Slice:
        """See `Control.events`."""
        return await stored(self._store, _job_id(job_id), from_seq, max(1, min(limit, MAX_LIMIT)))

    def follow(self, job_id: str, from_seq: int) -> AbstractAsyncContextManager[Reader]:
        """See `Control.follow`."""
        return self._journal.follow(_job_id(job_id), from_seq)

    async def records(self, job_id: str, from_seq: int, limit: int) -> list[tuple[int, Record]]:
        """See `Control.records`."""
        wanted = max(1, min(limit, MAX_LIMIT))
        return await self._store.read(_job_id(job_id), from_seq, limit=wanted, max_bytes=MAX_RECORD_BYTES)

    async def text_size(self, job_id: str) -> int:
        """See `Control.text_size`."""
        return await self._store.text_size(_job_id(job_id))

    async def read_text(self, job_id: str, offset: int, max_bytes: int) -> bytes:
        """See `Control.read_text`."""
        return await self._store.read_text(_job_id(job_id), offset, max_bytes)

    # The farm

    def workers(self) -> list[WorkerView]:
        """See `Control.workers`."""
        return [self._with_leaving(each) for each in self._workers.views()]

    async def drain(self, worker_id: str, drain: bool, *, actor: str = "") -> WorkerView:
        """See `Control.drain`."""
        member = await self._workers.drain(worker_id, drain)
        self._deployments.drained()
        return self._with_leaving(view(member))

    def _with_leaving(self, found: WorkerView) -> WorkerView:
        if found.state != "draining":
            return found
        return msgspec.structs.replace(found, leaving=self._deployments.leaving(found.id))

    async def queue(self) -> QueueView:
        """See `Control.queue`."""
        status = self._broker.status()
        return QueueView(
            kind=status.kind,
            connected=status.connected,
            reason=status.reason,
            queued=await self._store.queued_by_pool(),
        )

    async def counts(self) -> dict[JobState, int]:
        """See `Control.counts`."""
        return dict(self._journal.counts)

    async def farm_events(self, from_seq: int, limit: int) -> list[FarmEvent]:
        """See `Control.farm_events`."""
        return await self._store.noted(max(1, from_seq), limit=max(1, min(limit, MAX_LIMIT)))

    async def farm_changed(self, since: int) -> int:
        """See `Control.farm_changed`."""
        return await self._journal.wait_changed(since)


def _job_id(text: str) -> str:
    """The id, if it may be a job's. Raises `NotFound` for a stream's, which no job can bear."""
    if "." in text:
        raise NotFound(f"no job {text[:80]!r}")
    return text
