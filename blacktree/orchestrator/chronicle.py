"""The farm's own events: noted from anywhere without waiting, written in order by one task."""

from collections import deque
from collections.abc import Callable

import structlog
import trio

from blacktree.errors import StorageFailed
from blacktree.storage.base import FarmLog

log = structlog.get_logger()

MAX_PENDING = 10_000
# A shutdown has two seconds beyond its grace, and proving that builds have ended may take most of them.
LAST_WORDS_SECONDS = 0.3


class Chronicle:
    """`note` never waits; `run` writes. What waits when the tree ends is written before `run` leaves."""

    def __init__(self, farm: FarmLog, changed: Callable[[], None] = lambda: None) -> None:
        self._farm = farm
        self._changed = changed
        self._pending: deque[tuple[str, str, str]] = deque()
        self._arrived = trio.Event()

    def note(self, type: str, text: str, *, subject: str = "") -> None:
        """Remember that this happened."""
        if len(self._pending) >= MAX_PENDING:
            log.error("farm event dropped: the store has not taken one for long", type=type, text=text)
            return
        self._pending.append((type, text, subject))
        self._arrived.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what was noted; waits out a store that cannot."""
        task_status.started()
        try:
            while True:
                await self._arrived.wait()
                await self._write()
        finally:
            with trio.move_on_after(LAST_WORDS_SECONDS, shield=True):
                await self._write()

    async def _write(self) -> None:
        while self._pending:
            type, text, subject = self._pending[0]
            try:
                # One that is cut off on its way may be stored or not: it would be told twice.
                with trio.CancelScope(shield=True):
                    await self._farm.note(type, text, subject=subject)
            except StorageFailed as error:
                log.error("farm event not stored", type=type, reason=str(error))
                await trio.sleep(1)
                continue
            self._pending.popleft()
            self._changed()
        self._arrived = trio.Event()
