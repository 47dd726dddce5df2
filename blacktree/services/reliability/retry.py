"""How long to wait before trying again. Pure."""

from collections.abc import Callable


def backoff_seconds(tries: int, first: float, limit: float, random: Callable[[], float]) -> float:
    """Exponential with full jitter: anything up to `first * 2**(tries - 1)`, at most `limit`. `tries` counts from 1.

    `random` gives a number in [0, 1). At least a tenth of the span is waited, so that nothing spins.
    """
    span = min(limit, first * 2.0 ** min(max(0, tries - 1), 60))
    return span * (0.1 + 0.9 * random())
