"""How long to try again, and when: one outage, from the first failure to the next success."""

import random
from collections.abc import Callable

import trio

from blacktree.errors import Unavailable

FIRST_SECONDS = 0.1
LONGEST_SECONDS = 5.0

Told = Callable[[str], None]
"""Called once per outage with a sentence."""


class Outage:
    """Back-off with jitter, within a patience. Starts anew after `over`."""

    def __init__(self, server: str, patience_seconds: float, told: Told | None) -> None:
        self._server = server
        self._patience = patience_seconds
        self._told = told
        self.over()

    def over(self) -> None:
        """The server answered."""
        self._since: float | None = None
        self._delay = FIRST_SECONDS

    @property
    def hopeless(self) -> bool:
        """Whether there is no patience at all."""
        return self._patience <= 0

    async def pause(self, reason: str) -> None:
        """Wait before the next try. Raises `Unavailable` (code `server_unreachable`) when patience has run out."""
        if self._since is None:
            self._since = trio.current_time()
            if self._told is not None and self._patience > 0:
                self._told(reason)
        if trio.current_time() + self._delay > self._since + self._patience:
            raise Unavailable(
                f"server unreachable: {reason}",
                code="server_unreachable",
                advice=f"is a farm running at {self._server}?",
                retry_after_seconds=LONGEST_SECONDS,
            )
        await trio.sleep(self._delay * random.uniform(0.5, 1.0))
        self._delay = min(self._delay * 2, LONGEST_SECONDS)
