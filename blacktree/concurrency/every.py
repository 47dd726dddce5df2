"""`async for _ in every(15):` a period that does not drift; a late round is skipped, not caught up."""

import trio


class every:
    """Yields at once, then at each full period. A class, not an async generator, so that no scope hides in it."""

    def __init__(self, seconds: float, *, at_once: bool = True) -> None:
        self._seconds = seconds
        self._next = trio.current_time() + (0.0 if at_once else seconds)

    def __aiter__(self) -> "every":
        return self

    async def __anext__(self) -> None:
        await trio.sleep_until(self._next)
        behind = trio.current_time() - self._next
        self._next += self._seconds * (1 + behind // self._seconds)
