"""The pure part of keeping workers: who may have a job, who is best, and why nobody is."""

import heapq
import math
from collections.abc import Collection, Sequence

import msgspec

from blacktree.orchestrator.builders import Builder, Builders
from blacktree.orchestrator.ways import Profile

_NO_PROFILE = Profile(frozenset(), frozenset())


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as the choice sees it. `refusal` not empty: it takes nothing now. `profile`: what it builds."""

    id: str
    pool: str
    slots: int
    busy: int
    refusal: str = ""
    draining: bool = False
    warm: Sequence[str] = ()
    profile: Profile = _NO_PROFILE

    @property
    def free(self) -> int:
        """Slots that could take a job now."""
        return 0 if self.refusal or self.draining else max(0, self.slots - self.busy)


class Census:
    """Every living worker. A choice costs the logarithm of their number, so a large farm dispatches like a small one.

    The least loaded is found in a heap per pool; an entry that no longer tells the truth is dropped when it surfaces.
    """

    def __init__(self) -> None:
        self._known: dict[str, Candidate] = {}
        self._heaps: dict[str, list[tuple[float, str]]] = {}
        self._warm: dict[str, dict[str, None]] = {}
        self.builders = Builders()

    def put(self, candidate: Candidate) -> None:
        """Add a worker, or say how it stands now."""
        before = self._known.get(candidate.id)
        self._known[candidate.id] = candidate
        self.builders.put(
            Builder(
                id=candidate.id,
                pool=candidate.pool,
                profile=candidate.profile,
                free=candidate.free > 0,
                here=not candidate.draining,
            )
        )
        if before is None or before.warm != candidate.warm:
            self._forget_warm(before)
            for repository in candidate.warm:
                self._warm.setdefault(repository, {})[candidate.id] = None
        if candidate.free:
            heap = self._heaps.setdefault(candidate.pool, [])
            heapq.heappush(heap, (candidate.busy / candidate.slots, candidate.id))
            if len(heap) > 64 + 4 * len(self._known):
                self._rebuild(candidate.pool)

    def remove(self, id: str) -> None:
        """It is gone."""
        self._forget_warm(self._known.pop(id, None))
        self.builders.remove(id)

    def choose(self, pool: str, repository: str, needs: Collection[str] = ()) -> Candidate | None:
        """Among free slots of the pool: a worker that has this repository warm, else the least loaded.

        With `needs` (families of platforms), among those that build all of them, the ones that emulate least first.
        """
        if needs:
            able = self.builders.free(pool, needs)
            found = [self._known[id] for id, emulates in able.items() if emulates == min(able.values())]
            return min(found, key=lambda each: _preference(each, repository), default=None)
        warm = [self._known[id] for id in self._warm.get(repository, ())]
        warm = [each for each in warm if each.pool == pool and each.free]
        if warm:
            return min(warm, key=lambda each: _preference(each, repository))
        heap = self._heaps.get(pool, [])
        while heap:
            load, id = heap[0]
            best = self._known.get(id)
            if best is not None and best.free and best.pool == pool and best.busy / best.slots == load:
                return best
            heapq.heappop(heap)
        return None

    def why_waiting(self, pool: str, needs: Collection[str] = ()) -> str:
        """Why no job of this pool (that needs these platforms) is taken now; empty if a slot is free."""
        members = [each for each in self._known.values() if each.pool == pool]
        if not members:
            return f"no worker in pool `{pool}`"
        that = whose = ""
        if needs:
            named = " and ".join(sorted(needs))
            that, whose = f" that builds {named}", f" for {named}"
            members = [each for each in members if each.profile.builds(needs)]
            if not members:
                return f"no worker in pool `{pool}` builds {named} (`worker.platforms` says what one builds)"
        if any(each.free for each in members):
            return ""
        willing = [each for each in members if not each.refusal and not each.draining]
        if willing:
            slots = sum(each.slots for each in willing)
            return f"all {slots} slots{whose} busy" if slots > 1 else f"the only slot{whose} is busy"
        refusing = [each for each in members if each.refusal]
        if refusing:
            first = refusing[0]
            return f"no worker in pool `{pool}`{that} takes builds now: {first.id}: {first.refusal}"
        return f"every worker in pool `{pool}`{that} is draining"

    def _forget_warm(self, candidate: Candidate | None) -> None:
        if candidate is None:
            return
        for repository in candidate.warm:
            holders = self._warm.get(repository)
            if holders is not None:
                holders.pop(candidate.id, None)
                if not holders:
                    del self._warm[repository]

    def _rebuild(self, pool: str) -> None:
        heap = [(each.busy / each.slots, each.id) for each in self._known.values() if each.pool == pool and each.free]
        heapq.heapify(heap)
        self._heaps[pool] = heap


def _preference(candidate: Candidate, repository: str) -> tuple[float, float, str]:
    warm = candidate.warm.index(repository) if repository in candidate.warm else math.inf
    return warm, candidate.busy / candidate.slots, candidate.id


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th …"""
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"
