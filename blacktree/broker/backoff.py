"""How long to wait before the next attempt: quick at first, then doubling up to a limit, with jitter."""

import random
from collections.abc import Callable


class Backoff:
    """`next()` answers seconds; `reset()` after a success. Jitter takes up to half away, so that farms spread out."""

    def __init__(self, first: float, limit: float, *, chance: Callable[[], float] = random.random) -> None:
        self._first = first
        self._limit = limit
        self._chance = chance
        self._next = first

    def next(self) -> float:
        delay, self._next = self._next, min(self._next * 2, self._limit)
        return delay * (1 - self._chance() / 2)

    def reset(self) -> None:
        self._next = self._first
