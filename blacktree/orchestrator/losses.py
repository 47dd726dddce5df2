"""Leases that run out, and attempts that are lost with them."""

from functools import partial

import structlog
import trio

from blacktree.errors import NotFound, StorageFailed
from blacktree.orchestrator import moves
from blacktree.orchestrator.held import Book, Held
from blacktree.orchestrator.workers import Workers
from blacktree.storage.base import Store

log = structlog.get_logger()


class Losses:
    """The lease loop. An attempt is lost only after its worker's lease and any publish grant have ended."""

    def __init__(self, store: Store, workers: Workers, book: Book, rules: moves.Rules) -> None:
        self._store = store
        self._workers = workers
        self._book = book
        self._rules = rules
        self._nursery: trio.Nursery | None = None
        self.lost = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch the leases until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            while True:
                await trio.sleep_until(self._workers.next_expiry())
                for worker_id in self._workers.expired():
                    why = f"worker {worker_id} lost: silent for {self._workers.lease_seconds:g} s"
                    for held in self._book.of_worker(worker_id):
                        self._nursery.start_soon(partial(self.now, held, why))
                # A lease that was renewed meanwhile gives a new date; never look twice in one moment.
                await trio.sleep(0.01)

    async def now(self, held: Held, why: str, *, counts: bool = True, code: str = "worker_lost") -> None:
        """Take the attempt from its worker. Waits out a publish grant, and a store that takes no writes."""
        await trio.sleep_until(max(trio.current_time(), held.grant_until))
        while not held.done.is_set():
            try:
                decide = moves.lose(held.name, why, self._rules, counts=counts, code=code)
                await self._store.change(held.name.job_id, decide)
            except NotFound:
                return
            except StorageFailed as error:
                log.error("loss not stored", job=held.name.job_id, reason=str(error))
                await trio.sleep(1)
                continue
            self.lost += 1
            log.warning("attempt lost", job=held.name.job_id, attempt=held.name.attempt, reason=why)
            return

    def unproven(self, held: Held) -> None:
        """Its worker cannot show that nothing is left: the job ends only after one more lease."""
        if held.waits_for_lease or self._nursery is None:
            return
        held.waits_for_lease = True
        self._nursery.start_soon(self._after_lease, held)

    async def _after_lease(self, held: Held) -> None:
        with trio.move_on_after(self._workers.lease_seconds):
            await held.done.wait()
        await self.now(held, f"worker {held.worker_id} could not show that the build had ended", code="unproven")
