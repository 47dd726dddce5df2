"""Lists of jobs by more than their state: repository, text and pool, looked through newest first, bounded in time."""

from collections.abc import Collection

import msgspec
import trio

from blacktree.job import Job, JobState
from blacktree.orchestrator.control import Control, Found, JobView

_SECONDS = 1.0


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a job must fit. `repository` and `text` are parts of what they are compared with, case aside."""

    repository: str = ""
    text: str = ""
    pool: str = ""

    def fits(self, job: Job) -> bool:
        """Whether this job does."""
        if self.pool and job.spec.pool != self.pool:
            return False
        if self.repository and self.repository.lower() not in job.spec.repository.lower():
            return False
        wanted = self.text.lower()
        return not wanted or any(wanted in each.lower() for each in _texts(job))


def _texts(job: Job) -> list[str]:
    image = [job.image.reference, job.image.digest or ""] if job.image is not None else []
    origin = [job.origin.source, job.origin.branch, job.origin.tag] if job.origin is not None else []
    spec = job.spec
    return [job.id, spec.repository, spec.ref or "", spec.image or "", job.commit or "", job.worker_id or ""] + (
        image + origin
    )


async def find_jobs(
    control: Control, states: Collection[JobState], wanted: Wanted, *, limit: int, cursor: str | None
) -> Found:
    """As `Control.jobs`, of those that fit. A page may be shorter than `limit`; the end is where `cursor` is null."""
    if wanted == Wanted():
        return await control.jobs(states, limit=limit, cursor=cursor)
    found: list[JobView] = []
    end = trio.current_time() + _SECONDS
    while True:
        # Never more than there is room for: a cursor stands behind a whole page.
        page = await control.jobs(states, limit=limit - len(found), cursor=cursor)
        found += [view for view in page.jobs if wanted.fits(view.job)]
        cursor = page.cursor
        enough = 4 * (limit - len(found)) < limit
        if cursor is None or enough or trio.current_time() > end:
            return Found(jobs=found, cursor=cursor)
