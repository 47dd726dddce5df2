"""Versions whose image is still to be built: each is on record before its job, and is settled when that has ended."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import structlog
import trio

from blacktree.clock import now
from blacktree.deployment import Deployment, Version, VersionState
from blacktree.errors import NotFound, StorageFailed
from blacktree.job import Job
from blacktree.orchestrator import releases
from blacktree.orchestrator.deploymentrecord import Decide, DeploymentRecord
from blacktree.storage.base import Store

log = structlog.get_logger()

CHANGE_SECONDS = 5.0


class Expectations:
    """What builds will bring. `stir`: called when a version may have come of one."""

    def __init__(self, store: Store, record: DeploymentRecord, stir: Callable[[], None]) -> None:
        self._store = store
        self._record = record
        self._stir = stir
        self._expected: set[str] = set()

    async def start(self) -> None:
        """We may have ended between a version and its job: nobody will ever build that. Raises `StorageFailed`."""
        for name, number, job_id in self._pending():
            try:
                await self._store.get(job_id)
            except NotFound:
                await self._record.change(name, _settle(number, None))
            except StorageFailed as error:
                if error.code != "state_damaged":
                    raise
                # The first turn settles it.

    async def settle(self) -> None:
        """Say of every version whose job has ended what came of it. Raises `StorageFailed`."""
        for name, number, job_id in self._pending():
            expected = job_id in self._expected
            try:
                job = await self._store.get(job_id)
            except NotFound:
                if not expected:
                    # Whoever submitted it left in the middle: nobody will ever build it.
                    await self._record.change(name, _settle(number, None))
                continue
            except StorageFailed as error:
                if error.code != "state_damaged":
                    raise
                # Its row is damaged: the other deployments go on.
                log.error("the job of a deployment cannot be read", deployment=name, job=job_id, reason=str(error))
                await self._record.change(name, _settle(number, None))
                continue
            if job.ended:
                await self._record.change(name, _settle(number, job))

    def _pending(self) -> list[tuple[str, int, str]]:
        return [
            (deployment.name, version.number, version.job_id)
            for deployment in self._record.known.values()
            for version in deployment.versions
            if version.state is VersionState.PENDING and version.job_id is not None
        ]

    @asynccontextmanager
    async def expecting(self, job: Job) -> AsyncIterator[None]:
        """Around putting a job with `run` on record: its version is there first, so that none is ever forgotten.

        If the job is not on record afterwards (refused, or the same as an earlier one) its version is taken back.
        """
        run = job.spec.run
        if run is None or (job.origin is not None and not job.origin.trusted) or await self._on_record(job):
            yield
            return
        version = Version(
            number=0,
            run=run,
            created_at=job.created_at,
            pool=job.spec.pool,
            job_id=job.id,
            source=job.origin.source if job.origin is not None else None,
            repository=job.spec.repository,
            commit=job.commit,
        )
        self._expected.add(job.id)
        try:
            number, _ = await self._record.add(version)
            try:
                yield
            finally:
                # Whoever submits may leave in the middle: the record says what came of it.
                with trio.move_on_after(CHANGE_SECONDS, shield=True):
                    if not await self._on_record(job):
                        await self._record.change(run.name, partial(_withdraw, number=number))
        finally:
            self._expected.discard(job.id)
            self._stir()

    async def _on_record(self, job: Job) -> bool:
        try:
            await self._store.get(job.id)
        except NotFound:
            return False
        return True


def _settle(number: int, job: Job | None) -> Decide:
    def decide(found: Deployment | None) -> Deployment | None:
        if found is None:
            return None
        image = releases.image_of(job) if job is not None and job.state == "succeeded" else {}
        if image.get("image"):
            return releases.built(found, number, now(), **image)
        return releases.not_built(found, number, now(), job)

    return decide


def _withdraw(found: Deployment | None, number: int) -> Deployment | None:
    after = releases.withdrawn(found, number) if found is not None else None
    # What was only about to begin leaves nothing behind.
    return after if after is not None and after.versions else None
