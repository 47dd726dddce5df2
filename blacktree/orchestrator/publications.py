"""Who may move a name in a registry: never an older job after a newer one, and never two at the same time.

Registries have no fencing, so the record says it: for each name the youngest job that was given a grant for it, and
until when that grant may still be used. A retry is as old as the job that it repeats.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

import msgspec
import structlog
import trio

from blacktree.clock import now
from blacktree.errors import NotFound, StorageFailed
from blacktree.job import Job
from blacktree.orchestrator.held import Book, Held
from blacktree.storage.base import DocumentTable, JobTable
from blacktree.strict import UNREADABLE

log = structlog.get_logger()

NAMES = "published"
IMAGES = "published-image"
MAX_RETRIES = 100
MARGIN = timedelta(seconds=2)
LONGEST = timedelta(seconds=60)
PAGE = 500


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """Of one name: the job it was last granted to, that job's age, and the end of the grant."""

    job_id: str
    since: datetime
    until: datetime


class LastImage(msgspec.Struct, frozen=True, kw_only=True):
    """Of one image: under which name it was published last, and from which repository."""

    reference: str
    repository: str


class Records(JobTable, DocumentTable, Protocol):
    """What is needed of the store."""


_encode = msgspec.json.Encoder().encode
_publication = msgspec.json.Decoder(Publication).decode
_image = msgspec.json.Decoder(LastImage).decode


class Publications:
    """Decides when a worker asks for a grant. `None` for "not now"."""

    def __init__(self, store: Records, book: Book) -> None:
        self._store = store
        self._book = book
        self._one_at_a_time = trio.Lock()

    async def ask(self, held: Held, references: Sequence[str], seconds: float) -> list[str] | None:
        """The names among these that are withheld; None while another job may be moving one of them.

        Durable on return: from then on no older job gets any of the others. Nothing is given where the store fails.
        """
        job = held.job
        if not _may(job, "push"):
            return list(references)
        try:
            async with self._one_at_a_time:
                return await self._decide(job, references, seconds)
        except StorageFailed as error:
            log.error("publication not stored", job=job.id, reason=str(error))
            return None

    async def _decide(self, job: Job, references: Sequence[str], seconds: float) -> list[str] | None:
        since = await self._age(job)
        withheld: list[str] = []
        for reference in references:
            last = _read(await self._store.document(NAMES, reference))
            if last is None or last.job_id == job.id:
                continue
            if self._may_still_move(last):
                return None
            if last.since > since:
                withheld.append(reference)
        granted = [reference for reference in references if reference not in withheld]
        body = _encode(Publication(job_id=job.id, since=since, until=now() + timedelta(seconds=seconds) + MARGIN))
        writes = [(NAMES, reference, body) for reference in granted]
        # Nobody builds on what came from somebody who may not share a cache.
        if granted and job.part_of is None and job.spec.image is not None and _may(job, "cache"):
            image = _encode(LastImage(reference=granted[0], repository=job.spec.repository))
            writes.append((IMAGES, job.spec.image, image))
        await self._write(writes)
        return withheld

    async def _write(self, writes: Sequence[tuple[str, str, bytes]]) -> None:
        """All at once: one commit on disk, not one after the other."""
        failed: list[StorageFailed] = []

        async def write(kind: str, name: str, body: bytes) -> None:
            try:
                await self._store.revise(kind, name, lambda _: body)
            except StorageFailed as error:
                failed.append(error)

        async with trio.open_nursery() as nursery:
            for each in writes:
                nursery.start_soon(write, *each)
        if failed:
            raise failed[0]

    def _may_still_move(self, last: Publication) -> bool:
        """Whether its grant may be in use: its job has not ended, and its time is not over by a clock that is sane."""
        left = last.until - now()
        return timedelta() < left < LONGEST and self._book.of_job(last.job_id) is not None

    async def _age(self, job: Job) -> datetime:
        """When what this job builds was first asked for."""
        for _ in range(MAX_RETRIES):
            if job.retry_of is None:
                break
            try:
                job = await self._store.get(job.retry_of)
            except NotFound:
                break
        return job.created_at

    async def cache_for(self, job: Job) -> list[str]:
        """Under which name this image was published last, if the same repository did it; for its layers."""
        if not job.spec.push or job.spec.image is None or not _may(job, "cache"):
            return []
        try:
            body = await self._store.document(IMAGES, job.spec.image)
            last = _image(body) if body is not None else None
        except (StorageFailed, *UNREADABLE) as error:
            log.error("last publication cannot be read", job=job.id, reason=str(error))
            return []
        return [last.reference] if last is not None and last.repository == job.spec.repository else []

    async def forget(self) -> int:
        """Drop the names whose job is no longer on record; answers how many. An older one cannot come any more."""
        dropped, after = 0, ""
        while page := await self._store.documents(NAMES, after=after, limit=PAGE):
            for name, body in page:
                last = _read(body)
                if last is not None and not await self._there(last.job_id):
                    await self._store.revise(NAMES, name, partial(_unless_changed, body))
                    dropped += 1
            after = page[-1][0]
        return dropped

    async def _there(self, job_id: str) -> bool:
        try:
            await self._store.get(job_id)
        except NotFound:
            return False
        return True


def _may(job: Job, what: str) -> bool:
    return job.origin is None or job.origin.may(what)


def _unless_changed(seen: bytes, found: bytes | None) -> bytes | None:
    return None if found == seen else found


def _read(body: bytes | None) -> Publication | None:
    try:
        return _publication(body) if body is not None else None
    except UNREADABLE as error:
        log.error("publication cannot be read", reason=str(error))
        return None
