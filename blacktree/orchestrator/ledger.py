"""`Ledger`: what must get on record gets there as soon as the store takes it."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import structlog
import trio

from blacktree.errors import StorageFailed
from blacktree.storage.base import Commit, Decide, JobTable

log = structlog.get_logger()

T = TypeVar("T")

DAMAGED_LOOK_SECONDS = 30.0


class Ledger:
    """The store, for whoever holds a job and cannot go on without it."""

    def __init__(self, store: JobTable) -> None:
        self._store = store

    async def commit(self, job_id: str, decide: Decide) -> Commit:
        """Change a job that a worker may hold: to leave it would free a slot that is none."""
        while True:
            try:
                return await self.insist(partial(self._store.change, job_id, decide))
            except StorageFailed as error:
                if error.code == "storage_closed":
                    raise
                log.error("an attempt cannot be put on record", job=job_id, reason=str(error))
                await trio.sleep(DAMAGED_LOOK_SECONDS)

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Do it as soon as the store takes writes: a full disk delays a job, it does not lose one.

        Raises `StorageFailed` where waiting mends nothing: damage, or a store that has ended.
        """
        while True:
            try:
                return await call()
            except StorageFailed as error:
                if not error.again:
                    raise
                log.error("waiting for the store", reason=str(error))
                await trio.sleep(1)
