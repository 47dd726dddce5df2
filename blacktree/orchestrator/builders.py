"""Who builds which platform: the part of the census that jobs with platforms look into."""

from collections import Counter
from collections.abc import Collection

import msgspec

from blacktree.orchestrator.ways import Profile


class Builder(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as a job with platforms sees it. `here`: it takes builds, or will when it has a slot."""

    id: str
    pool: str
    profile: Profile
    free: bool
    here: bool


class Builders:
    """Kept in step with the census. To find the free ones costs their number, not that of all workers."""

    def __init__(self) -> None:
        self._known: dict[str, Builder] = {}
        self._free: dict[tuple[str, str], dict[str, None]] = {}
        self._profiles: dict[str, Counter[Profile]] = {}
        self._ever: dict[str, set[str]] = {}

    def put(self, builder: Builder) -> None:
        """Add one, or say how it stands now."""
        if self._known.get(builder.id) == builder:
            return
        self.remove(builder.id)
        self._known[builder.id] = builder
        platforms = builder.profile.native | builder.profile.emulated
        self._ever.setdefault(builder.pool, set()).update(platforms)
        if builder.here:
            self._profiles.setdefault(builder.pool, Counter())[builder.profile] += 1
        if builder.free:
            for platform in platforms:
                self._free.setdefault((builder.pool, platform), {})[builder.id] = None

    def remove(self, id: str) -> None:
        """It is gone."""
        builder = self._known.pop(id, None)
        if builder is None:
            return
        if builder.here:
            profiles = self._profiles[builder.pool]
            profiles[builder.profile] -= 1
            if not profiles[builder.profile]:
                del profiles[builder.profile]
        if builder.free:
            for platform in builder.profile.native | builder.profile.emulated:
                del self._free[builder.pool, platform][id]

    def profiles(self, pool: str) -> Collection[Profile]:
        """Of those who are here, each once."""
        return self._profiles.get(pool, {}).keys()

    def known(self, pool: str) -> Collection[str]:
        """Every family that was ever built here, as far back as this process remembers."""
        return self._ever.get(pool, ())

    def free(self, pool: str, needs: Collection[str]) -> dict[str, int]:
        """The free ones that build all of these (at least one), and how many of them each would emulate."""
        found = {}
        for id in self._free.get((pool, next(iter(needs))), ()):
            profile = self._known[id].profile
            if profile.builds(needs):
                found[id] = sum(each not in profile.native for each in needs)
        return found
