"""`Parking`: jobs whose platforms no free worker of their pool builds now. They hold up nobody, and miss nothing."""

import heapq
from functools import partial

import msgspec
import trio

from blacktree.job import Job, JobState
from blacktree.orchestrator import moves
from blacktree.orchestrator.ways import Wanted, wanted_by
from blacktree.orchestrator.workers import Workers
from blacktree.storage.base import Commit

Group = tuple[str, Wanted]
"""A pool, and what is asked of it."""


class _Place(msgspec.Struct, frozen=True):
    group: Group
    ticket: bytes


class Parked:
    """`Delivery` of a job that was parked: its message is acknowledged long ago, the record stands for it."""

    redelivered = False

    def __init__(self, job_id: str, pool: str, body: bytes, parking: "Parking", place: _Place, priority: int) -> None:
        self.message_id = job_id
        self.pool = pool
        self.body = body
        self._back = partial(parking.restore, job_id, place, priority)

    async def ack(self) -> None:
        await trio.lowlevel.checkpoint()

    async def requeue(self) -> None:
        self._back()
        await trio.lowlevel.checkpoint()

    async def reject(self, reason: str, *, body: bytes | None = None) -> None:
        await trio.lowlevel.checkpoint()


class Parking:
    """In memory: what stands here is queued on record, and its tickets are published again after a restart."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._places: dict[str, _Place] = {}
        self._groups: dict[Group, list[tuple[int, str]]] = {}

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._places

    def __len__(self) -> int:
        return len(self._places)

    def put(self, job: Job) -> None:
        """Keep a queued job until it can go. Twice is once."""
        body = moves.ticket(job).body
        self.restore(job.id, _Place((job.spec.pool, wanted_by(job)), body), job.spec.priority)

    def restore(self, job_id: str, place: _Place, priority: int) -> None:
        """Keep it, again."""
        if not self._stands(job_id, place.group):
            heapq.heappush(self._groups.setdefault(place.group, []), (-priority, job_id))
        self._places[job_id] = place
        self._workers.stir()

    def on_commit(self, commit: Commit) -> None:
        """Forget a job that is queued no more."""
        if commit.job.state is not JobState.QUEUED:
            self._places.pop(commit.job.id, None)

    def count(self, pool: str) -> int:
        """How many of this pool stand here."""
        return sum(place.group[0] == pool for place in self._places.values())

    def hopeless(self, pool: str) -> set[str]:
        """Those that no worker of this pool has ever been able to build: more of the same kind would not help."""
        known = self._workers.census.builders.known(pool)
        return {
            job_id
            for job_id, place in self._places.items()
            if place.group[0] == pool and not set(place.group[1].families) <= set(known)
        }

    async def next(self) -> Parked:
        """The first in line of those that can go; waits for one. It stands here no more."""
        while (found := self._first()) is None:
            await self._workers.wait_changed()
        return found

    def _stands(self, job_id: str, group: Group) -> bool:
        place = self._places.get(job_id)
        return place is not None and place.group == group

    def _first(self) -> Parked | None:
        ready: list[tuple[int, str, Group]] = []
        for group, line in list(self._groups.items()):
            while line and not self._stands(line[0][1], group):
                heapq.heappop(line)
            if not line:
                del self._groups[group]
            elif self._workers.can_go(*group):
                ready.append((*line[0], group))
        if not ready:
            return None
        priority, job_id, group = min(ready)
        heapq.heappop(self._groups[group])
        place = self._places.pop(job_id)
        return Parked(job_id, group[0], place.ticket, self, place, -priority)
