"""How often something took how long: counts by upper bound, a set for each combination of labels. Bounded."""

from bisect import bisect_left
from collections.abc import Sequence

QUICK = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Seconds, for what should take milliseconds."""
SLOW = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0)
"""Seconds, for what takes as long as a build."""
OTHER = "other"


class Histogram:
    """Counts of observed values. `counts` has one more than `bounds`: what is above all of them."""

    def __init__(self, bounds: Sequence[float] = SLOW) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """One more. A clock that was set back makes no negative time."""
        value = max(0.0, value)
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many were observed."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """Pairs of bound and how many are not above it, the last bound being `+Inf`: as Prometheus wants them."""
        total = 0
        found: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            found.append((bound, total))
        return found


class Spread:
    """A histogram for each combination of label values, at most `most` of them; the rest is counted as `other`."""

    def __init__(self, bounds: Sequence[float] = SLOW, *, most: int = 128) -> None:
        self._bounds = bounds
        self._most = most
        self.parts: dict[tuple[str, ...], Histogram] = {}

    def observe(self, value: float, *labels: str) -> None:
        """One more with these label values."""
        found = self.parts.get(labels)
        if found is None:
            if len(self.parts) >= self._most:
                labels = (OTHER,) * len(labels)
            found = self.parts.setdefault(labels, Histogram(self._bounds))
        found.observe(value)
