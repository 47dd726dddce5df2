"""`Groups`: which unfinished jobs belong to the same branch, tag or pull request of a source."""

from collections import OrderedDict

import msgspec
import trio

from blacktree.job import Job, JobState, Origin
from blacktree.orchestrator.forges.base import PullRequest, Pushed
from blacktree.storage.base import Commit, Store

Key = tuple[str, str]
"""A source's name, and what `group_of` says."""
_MOST_HEADS = 10_000


def group_of(origin: Origin) -> str:
    """`branch:main`, `tag:v1`, `pull_request:7`."""
    if origin.pull_request is not None:
        return f"pull_request:{origin.pull_request}"
    return f"tag:{origin.tag}" if origin.tag else f"branch:{origin.branch}"


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The newest change of a group: where it came from, where it went, when (by the forge's clock and by ours)."""

    before: str
    commit: str
    at: float | None
    seen: float


def overtaken(event: Pushed | PullRequest, head: Head | None) -> bool:
    """Whether a newer change has been heard of already: forges deliver in no order."""
    if head is None or event.commit == head.commit:
        return False
    if event.at is not None and head.at is not None and event.at != head.at:
        return event.at < head.at
    return event.commit == head.before and event.before != head.commit


class Groups:
    """Follows the commits; what ended is forgotten."""

    def __init__(self) -> None:
        self._jobs: dict[Key, dict[str, Job]] = {}
        self._heads: OrderedDict[Key, Head] = OrderedDict()

    async def load(self, store: Store) -> None:
        """The unfinished jobs on record. To be called once, before jobs are taken."""
        for job in await store.unfinished():
            self._take(job)
        after = ""
        while page := await store.queued(after=after):
            for job in page:
                self._take(job)
            after = page[-1].id

    def on_commit(self, commit: Commit) -> None:
        """Note the job as it stands now."""
        self._take(commit.job)

    def _take(self, job: Job) -> None:
        # A part goes with its whole.
        if job.origin is None or job.part_of is not None:
            return
        key = (job.origin.source, group_of(job.origin))
        if not job.ended:
            self._jobs.setdefault(key, {})[job.id] = job
        elif (jobs := self._jobs.get(key)) is not None:
            jobs.pop(job.id, None)
            if not jobs:
                del self._jobs[key]

    def unfinished(self, key: Key) -> list[Job]:
        """Oldest first."""
        return sorted(self._jobs.get(key, {}).values(), key=lambda job: (job.created_at, job.id))

    def queued(self, key: Key) -> list[Job]:
        """Those that no worker has."""
        return [job for job in self.unfinished(key) if job.state is JobState.QUEUED]

    def older(self, key: Key, than: Job) -> list[Job]:
        """What makes way for this job; also what is canceled already and has not ended."""
        mark = (than.created_at, than.id)
        return [job for job in self.unfinished(key) if (job.created_at, job.id) < mark]

    def head(self, key: Key) -> Head | None:
        """The newest change heard of since the start."""
        return self._heads.get(key)

    def advance(self, key: Key, event: Pushed | PullRequest) -> None:
        """This is the newest change now."""
        self._heads[key] = Head(before=event.before, commit=event.commit, at=event.at, seen=trio.current_time())
        self._heads.move_to_end(key)
        while len(self._heads) > _MOST_HEADS:
            self._heads.popitem(last=False)
