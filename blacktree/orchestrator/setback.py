"""What goes wrong again and again is tried again after pauses that grow; the reason is kept for whoever asks."""

import random

import trio


class Setback:
    """`reason` is empty while all is well. Pauses double from `first_seconds` to `limit_seconds`, with some jitter."""

    def __init__(self, first_seconds: float, limit_seconds: float) -> None:
        self._first = first_seconds
        self._limit = limit_seconds
        self._pause = 0.0
        self._until = 0.0
        self.reason = ""
        self.count = 0

    def failed(self, reason: str) -> bool:
        """It went wrong; True if not in the way it did last time."""
        news = reason != self.reason
        self.reason = reason
        self.count += 1
        self._pause = min(self._limit, max(self._first, self._pause * 2))
        self._until = trio.current_time() + self._pause * random.uniform(0.8, 1.0)
        return news

    def over(self) -> bool:
        """It went well; True if it did not before."""
        news = bool(self.reason)
        self.reason, self._pause, self._until = "", 0.0, 0.0
        return news

    @property
    def left_seconds(self) -> float:
        """How long it is not to be tried."""
        return max(0.0, self._until - trio.current_time())
