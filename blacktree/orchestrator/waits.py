"""How long the jobs of some pools have waited, kept from the commits: no look into the store is needed."""

from collections.abc import Collection, Iterable
from datetime import datetime

from blacktree.job import Job, JobState
from blacktree.storage.base import Commit

MOST = 10_000


class Waits:
    """Queued jobs of these pools, oldest first; of a longer queue only the oldest `MOST` are known."""

    def __init__(self, pools: Iterable[str]) -> None:
        self._since: dict[str, dict[str, datetime]] = {pool: {} for pool in pools}

    def on_commit(self, commit: Commit) -> None:
        """Keep what waits, drop what does not."""
        self.put(commit.job)

    def put(self, job: Job) -> None:
        """As it stands now."""
        waiting = self._since.get(job.spec.pool)
        if waiting is None:
            return
        waiting.pop(job.id, None)
        if job.state is JobState.QUEUED and len(waiting) < MOST:
            waiting[job.id] = max(job.queued_at, job.not_before or job.queued_at)

    def known(self, pool: str) -> int:
        """Of how many it is known that they wait."""
        return len(self._since.get(pool, ()))

    def look(self, pool: str, moment: datetime, in_hand: Collection[str] = ()) -> tuple[int, float]:
        """How many of the known ones cannot start now, and for how many seconds the oldest other one waits.

        Those that back off cannot, and those that have a slot already while their hand-off is written down (`in_hand`).
        """
        known = self._since.get(pool, {})
        handed = sum(each in known for each in in_hand)
        since = [at for id, at in known.items() if id not in in_hand]
        later = sum(each > moment for each in since)
        oldest = min((each for each in since if each <= moment), default=moment)
        return later + handed, (moment - oldest).total_seconds()
