"""The farm as a token sees it that is for some repositories alone: what is not theirs is not there.

Every call of `Control` is answered here by name, so that a new one has to be thought of before it can be asked.
What such a token learns of the others is how busy the farm is: taken slots, and its own place in line.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

import msgspec

from blacktree.errors import NotFound
from blacktree.event import FarmEvent, Record
from blacktree.job import JobState
from blacktree.orchestrator.auditcontrol import AuditControl
from blacktree.orchestrator.control import Control, Follow, Found, JobView, QueueView, Readiness, Slice, WorkerView
from blacktree.orchestrator.deploymentcontrol import DeploymentControl
from blacktree.orchestrator.hookcontrol import HookControl, SourceControl
from blacktree.orchestrator.notifycontrol import NotifyControl
from blacktree.orchestrator.places import Closed, Places, farm_wide
from blacktree.orchestrator.scopedparts import ScopedDeployments, ScopedSources
from blacktree.orchestrator.secretcontrol import SecretControl
from blacktree.orchestrator.tokencontrol import TokenControl
from blacktree.spec import JobSpec
from blacktree.storage.cursor import make, micros

PAGE_JOBS = 500
MOST_LOOKED_AT = 2000
_BEFORE_ALL_IDS = "!"


class Scoped:
    """A `Control` of the repositories that fit."""

    def __init__(self, control: Control, patterns: Sequence[str]) -> None:
        self._control = control
        self._places = Places(patterns)
        self._deployments = ScopedDeployments(control.deployments, self._places)
        self._sources = ScopedSources(control.sources, self._places, self._deployments)

    @property
    def secrets(self) -> SecretControl:
        """Of the farm as a whole: every call is refused."""
        return cast("SecretControl", Closed())

    @property
    def notify(self) -> NotifyControl:
        """Of the farm as a whole: every call is refused."""
        return cast("NotifyControl", Closed())

    @property
    def tokens(self) -> TokenControl:
        """The door's own business."""
        return self._control.tokens

    @property
    def audit(self) -> AuditControl:
        """The door's own business."""
        return self._control.audit

    @property
    def hooks(self) -> HookControl:
        """Webhooks are let in by their signature."""
        return self._control.hooks

    @property
    def sources(self) -> SourceControl:
        """Those of these repositories."""
        return self._sources

    @property
    def deployments(self) -> DeploymentControl:
        """Those of these repositories."""
        return self._deployments

    async def submit(self, spec: JobSpec, *, key: str | None = None, actor: str = "") -> tuple[JobView, bool]:
        """See `Control.submit`. Raises `NotAllowed` for another repository, and for another's deployment."""
        self._places.check(spec.repository)
        await self._deployments.check_name(spec.run)
        spec, key = self._places.keyed(spec, key)
        view, new = await self._control.submit(spec, key=key, actor=actor)
        return self._places.shown(view), new

    async def job(self, job_id: str) -> JobView:
        """See `Control.job`."""
        view = await self._control.job(job_id)
        if not self._places.has(view.job.spec.repository):
            raise NotFound(f"no job {job_id!r}")
        return self._places.shown(view)

    async def jobs(self, states: Collection[JobState], *, limit: int = 50, cursor: str | None = None) -> Found:
        """See `Control.jobs`. A page may be short of its limit, and the cursor then leads on."""
        found: list[JobView] = []
        looked_at = 0
        while True:
            page = await self._control.jobs(states, limit=PAGE_JOBS, cursor=cursor)
            for place, view in enumerate(page.jobs):
                if not self._places.has(view.job.spec.repository):
                    continue
                found.append(self._places.shown(view))
                if len(found) >= limit:
                    more = page.cursor is not None or place + 1 < len(page.jobs)
                    return Found(jobs=found, cursor=make(micros(view.job.created_at), view.job.id) if more else None)
            looked_at += len(page.jobs)
            if page.cursor is None:
                return Found(jobs=found)
            cursor = page.cursor
            if looked_at >= MOST_LOOKED_AT and (cut := _cut(page.jobs)) is not None:
                return Found(jobs=found, cursor=cut)

    async def cancel(self, job_id: str, *, reason: str = "", actor: str = "") -> JobView:
        """See `Control.cancel`."""
        await self.job(job_id)
        return self._places.shown(await self._control.cancel(job_id, reason=reason, actor=actor))

    async def retry(self, job_id: str, *, actor: str = "") -> JobView:
        """See `Control.retry`. Raises `NotAllowed` where its deployment has become another's."""
        await self._deployments.check_name((await self.job(job_id)).job.spec.run)
        return await self._control.retry(job_id, actor=actor)

    async def events(self, job_id: str, from_seq: int, limit: int) -> Slice:
        """See `Control.events`."""
        await self.job(job_id)
        return await self._control.events(job_id, from_seq, limit)

    @asynccontextmanager
    async def _follow(self, job_id: str, from_seq: int) -> AsyncIterator[Follow]:
        await self.job(job_id)
        async with self._control.follow(job_id, from_seq) as follow:
            yield follow

    def follow(self, job_id: str, from_seq: int) -> AbstractAsyncContextManager[Follow]:
        """See `Control.follow`."""
        return self._follow(job_id, from_seq)

    async def records(self, job_id: str, from_seq: int, limit: int) -> list[tuple[int, Record]]:
        """See `Control.records`."""
        await self.job(job_id)
        return await self._control.records(job_id, from_seq, limit)

    async def text_size(self, job_id: str) -> int:
        """See `Control.text_size`."""
        await self.job(job_id)
        return await self._control.text_size(job_id)

    async def read_text(self, job_id: str, offset: int, max_bytes: int) -> bytes:
        """See `Control.read_text`."""
        await self.job(job_id)
        return await self._control.read_text(job_id, offset, max_bytes)

    def workers(self) -> list[WorkerView]:
        """See `Control.workers`. Where they are and what others build there is left out; how busy they are is not."""
        return [
            msgspec.structs.replace(
                view,
                jobs=[],
                leaving=[],
                warm=[each for each in view.warm if self._places.has(each)],
                address="",
                refusal="takes no builds now" if view.refusal else "",
            )
            for view in self._control.workers()
        ]

    async def drain(self, worker_id: str, drain: bool, *, actor: str = "") -> WorkerView:
        """Of the farm as a whole."""
        raise farm_wide()

    async def queue(self) -> QueueView:
        """See `Control.queue`. How many wait in which pool is the others' business."""
        return msgspec.structs.replace(await self._control.queue(), queued={}, reason="")

    async def counts(self) -> dict[JobState, int]:
        """Of the farm as a whole: none."""
        return {}

    def readiness(self) -> Readiness:
        """See `Control.readiness`; without the reasons, which name anything."""
        return msgspec.structs.replace(self._control.readiness(), reasons=[])

    async def farm_events(self, from_seq: int, limit: int) -> list[FarmEvent]:
        """See `Control.farm_events`: those about a source or a deployment of these repositories."""
        found: list[FarmEvent] = []
        while len(found) < limit:
            page = await self._control.farm_events(from_seq, 1000)
            if not page:
                break
            for event in page:
                if event.subject and len(found) < limit and await self._is_ours(event):
                    found.append(event)
            from_seq = page[-1].seq + 1
        return found

    async def _is_ours(self, event: FarmEvent) -> bool:
        kind = event.type.partition("_")[0]
        try:
            if kind == "deployment":
                await self._deployments.get(event.subject)
                return True
            if kind == "source":
                self._sources.get(event.subject)
                return True
            if kind == "job":
                await self.job(event.subject)
                return True
        except NotFound:
            pass
        return False

    async def farm_changed(self, since: int) -> int:
        """See `Control.farm_changed`."""
        return await self._control.farm_changed(since)

    def figures(self) -> dict[str, Any]:
        """Of the farm as a whole: none."""
        return {}


def _cut(jobs: Sequence[JobView]) -> str | None:
    """A cursor behind the last job that is older than the one before it, without anybody's id in it."""
    times = [micros(view.job.created_at) for view in jobs]
    return next(
        (make(times[n - 1], _BEFORE_ALL_IDS) for n in range(len(times) - 1, 0, -1) if times[n] < times[n - 1]), None
    )
