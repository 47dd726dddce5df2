"""The jobs that changed last, so that a ticket that comes back within moments needs no look into the store."""

from collections import OrderedDict

from blacktree.job import Job, JobState
from blacktree.storage.base import Commit


class Recent:
    """Queued jobs as last committed, at most `most` of them."""

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    def on_commit(self, commit: Commit) -> None:
        """Keep what is queued, drop what is not."""
        job = commit.job
        if job.state is JobState.QUEUED:
            self._jobs[job.id] = job
            if len(self._jobs) > self._most:
                self._jobs.popitem(last=False)
        else:
            self._jobs.pop(job.id, None)

    def get(self, job_id: str) -> Job | None:
        """The queued job, if it is among them."""
        return self._jobs.get(job_id)
