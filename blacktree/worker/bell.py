"""`Bell`: tells the reporter that there is something to say, how much, and whether it can wait for company."""

import trio

# The first word after a silence waits this long for company; later ones keep the full pace apart.
COMPANY_SECONDS = 0.004
PACE_SECONDS = 0.05
# Even what somebody waits for keeps this far apart: builds that end within moments share one report.
URGENT_PACE_SECONDS = 0.006
FULL_BYTES = 512 * 1024


class Bell:
    """Rung by many, heard by one. What was rung before `hear` returns is answered by what the hearer does next."""

    def __init__(self) -> None:
        self._rung = trio.Event()
        self._urgent = trio.Event()
        self._gathered = 0
        self._last = -PACE_SECONDS

    def ring(self, size: int = 0) -> None:
        """Something to say; `size` bytes of it."""
        self._gathered += size
        self._rung.set()
        if self._gathered >= FULL_BYTES:
            self._urgent.set()

    def ring_urgently(self) -> None:
        """Something that somebody waits for: an outcome, a commit, a publish grant."""
        self._rung.set()
        self._urgent.set()

    async def hear(self, longest_seconds: float) -> None:
        """Return when it is time to speak: soon if urgent, paced otherwise, after `longest_seconds` in any case."""
        with trio.move_on_after(longest_seconds):
            await self._rung.wait()
            if not self._urgent.is_set():
                now = trio.current_time()
                with trio.move_on_at(max(self._last + PACE_SECONDS, now + COMPANY_SECONDS)):
                    await self._urgent.wait()
            if self._gathered < FULL_BYTES:
                await trio.sleep_until(self._last + URGENT_PACE_SECONDS)
        self._last = trio.current_time()
        self._rung = trio.Event()
        self._urgent = trio.Event()
        self._gathered = 0
