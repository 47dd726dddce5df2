"""`Idle`: connections on which the door waits for somebody it does not know, and which make way when all are taken."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Idle:
    """Those that wait, the longest waiting first."""

    def __init__(self) -> None:
        self._scopes: dict[trio.CancelScope, None] = {}

    @contextmanager
    def waiting(self) -> Iterator[trio.CancelScope]:
        """While this is waited for; left early, with `cancelled_caught`, when another needs the place."""
        with trio.CancelScope() as scope:
            self._scopes[scope] = None
            try:
                yield scope
            finally:
                self._scopes.pop(scope, None)

    def make_room(self) -> bool:
        """End the longest wait; False if there is none."""
        for scope in self._scopes:
            del self._scopes[scope]
            scope.cancel()
            return True
        return False
