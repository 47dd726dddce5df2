"""Old jobs and their logs are forgotten, if the operator wants that."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog
import trio

from blacktree.clock import now
from blacktree.concurrency.every import every
from blacktree.errors import StorageFailed
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.storage.base import Store

log = structlog.get_logger()

LOOK_SECONDS = 3600.0
GROUP = 100


class Retention:
    """Forgets jobs that ended more than `days` ago; 0 keeps everything for ever. `forgot` hears that some are gone."""

    def __init__(
        self, store: Store, chronicle: Chronicle, days: float, forgot: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._store = store
        self._chronicle = chronicle
        self._days = days
        self._forgot = forgot

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look every hour, until cancelled."""
        task_status.started()
        if not self._days:
            return
        async for _ in every(LOOK_SECONDS):
            try:
                await self._forget()
            except StorageFailed as error:
                log.error("old jobs not forgotten", reason=str(error))

    async def _forget(self) -> None:
        before, forgotten = now() - timedelta(days=self._days), 0
        while group := await self._store.forget(before, limit=GROUP):
            forgotten += group
        if forgotten:
            text = f"forgot {forgotten} jobs that ended more than {self._days:g} days ago"
            self._chronicle.note("jobs_forgotten", text)
        if forgotten and self._forgot is not None:
            await self._forgot()
