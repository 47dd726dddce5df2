"""`Backlog`: frames that wait behind a peer which does not read, of all connections together."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

MOST_BYTES = 256 << 20


class Abortable(Protocol):
    """A connection."""

    def abort(self) -> None:
        """Close it now; whoever waits to send leaves."""
        ...


class Backlog:
    """When too much waits, the connection that lets most wait is over: one that asks for much and reads nothing.

    What is being sent does not count: a slow reader of one log lets nothing wait behind it.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        """`most`: bytes."""
        self.most = most
        self._sizes: Counter[Abortable] = Counter()
        self._total = 0

    @contextmanager
    def waiting(self, wire: Abortable, size: int) -> Iterator[None]:
        """While so many bytes wait for their turn on this connection."""
        self._sizes[wire] += size
        self._total += size
        try:
            if self._total > self.most:
                max(self._sizes, key=self._sizes.__getitem__).abort()
            yield
        finally:
            self._total -= size
            self._sizes[wire] -= size
            if not self._sizes[wire]:
                del self._sizes[wire]
