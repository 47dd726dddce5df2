"""A shutdown is over within its grace and two seconds, whatever is broken."""

from pathlib import Path

import pytest
import trio

from blacktree.errors import StorageFailed
from blacktree.event import FarmEvent
from tests.orchestrator.conftest import open_house
from tests.review.test_daemon_survives import FailingStore, store

__all__ = ["store"]
GRACE = 0.2


@pytest.mark.parametrize("worker_is", ["there", "stubborn", "gone"])
async def test_a_store_that_fails_holds_up_no_shutdown(
    tmp_path: Path, store: FailingStore, worker_is: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def note(*args: object, **options: object) -> FarmEvent:
        raise StorageFailed("as the test wants")

    async with open_house(tmp_path, memory=True, shutdown_grace_seconds=GRACE, lease_seconds=120.0) as house:
        worker = await house.worker(honest_stop=worker_is == "there")
        job_id = await house.submit()
        assignment = await worker.next_assignment()
        await worker.say(assignment)
        await house.until(job_id, "running")
        worker.silent = worker_is == "gone"
        store.failing = True
        monkeypatch.setattr(store, "note", note)
        house.stop.set()
        # Less than a lease.
        with trio.fail_after(40):
            await house.ended.wait()
