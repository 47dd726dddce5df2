"""What one worker, one message or a failing disk does must not end the daemon, nor leave a job where nobody looks."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from blacktree.errors import BlacktreeError, StorageFailed
from blacktree.orchestrator import daemon
from blacktree.rpc.peer import Answer, Assignment
from blacktree.storage.base import Commit, Decide
from blacktree.storage.memory import MemoryStore
from tests.orchestrator.conftest import SHORT_LEASE, open_house
from tests.parts.toy_worker import ToyWorker


class FailingStore(MemoryStore):
    """Takes no writes while `failing`; `refused` says that one was tried."""

    def __init__(self) -> None:
        super().__init__()
        self.failing = False
        self.reading_fails = False
        self.refused = trio.Event()

    async def change(self, job_id: str, decide: Decide) -> Commit:
        if self.failing:
            self.refused.set()
            raise StorageFailed("as the test wants")
        return await super().change(job_id, decide)

    async def read_text(self, job_id: str, offset: int, max_bytes: int) -> bytes:
        if self.reading_fails:
            self.refused.set()
            raise StorageFailed("as the test wants")
        return await super().read_text(job_id, offset, max_bytes)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FailingStore:
    made = FailingStore()
    monkeypatch.setattr(daemon, "open_store", lambda *_, **__: made)
    return made


async def test_a_delivery_whose_slot_never_came_goes_back(tmp_path: Path) -> None:
    async with open_house(tmp_path, memory=True, lease_seconds=1.0, slot_wait_seconds=0.1) as house:
        # The dispatcher has seen its slot and waits for a delivery when the worker is lost.
        worker = await house.worker()
        await trio.sleep(0.2)
        worker.silent = True
        while any(view.state != "dead" for view in house.control.workers()):
            await trio.sleep(0.05)
        job_id = await house.submit()
        await trio.sleep(0.5)
        second = await house.worker(automatic=True)
        job = await house.finished(job_id)
        assert (job.state, job.worker_id) == ("succeeded", second.id)


@pytest.mark.parametrize("address", ["garbage", "host:99999", "unix:relative", "", "a..b:80", "x" * 300 + ":1"])
async def test_a_worker_with_an_address_that_is_none_ends_nobody(tmp_path: Path, address: str) -> None:
    async with open_house(tmp_path, memory=True, **SHORT_LEASE) as house:
        good = await house.worker(automatic=True)
        bad = await house.worker()
        bad.silent = True  # only this test speaks for it
        bad.address = address
        bad.incarnation = "another one"
        try:
            await bad.register()
        except BlacktreeError:
            pass
        await trio.sleep(0.1)
        job = await house.finished(await house.submit())
        assert (job.state, job.worker_id) == ("succeeded", good.id)


async def test_an_attempt_recorded_for_a_worker_that_left_meanwhile_is_not_forgotten(
    tmp_path: Path, store: FailingStore
) -> None:
    async with open_house(tmp_path, memory=True, lease_seconds=60.0) as house:
        worker = await house.worker(slots=1)
        await trio.sleep(0.1)
        store.failing = True
        job_id = await house.submit()
        await store.refused.wait()
        worker.silent = True
        assert worker.side is not None
        await worker.side.leave(worker.id, worker.incarnation)
        store.failing = False
        second = await house.worker(automatic=True)
        with trio.fail_after(40):
            job = await house.finished(job_id)
        assert (job.state, job.worker_id, job.attempt, job.tries) == ("succeeded", second.id, 1, 0)


class Deaf(ToyWorker):
    """Reports, but nobody can reach it once it is `deaf`."""

    deaf = False

    async def run_jobs(self, assignments: Sequence[Assignment]) -> list[Answer]:
        if self.deaf:
            await trio.sleep_forever()
        return await super().run_jobs(assignments)


async def test_a_hand_off_that_never_arrives_does_not_hold_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blacktree.orchestrator.member.CALL_SECONDS", 2.0)
    async with open_house(tmp_path, memory=True, **SHORT_LEASE) as house:
        deaf = Deaf(slots=1)
        await house.nursery.start(
            lambda task_status: deaf.run(house.address, "join-token-of-the-test", tmp_path, task_status=task_status)
        )
        while any("reached" in view.refusal for view in house.control.workers()):
            await trio.sleep(0.01)
        deaf.deaf = True
        job_id = await house.submit()
        await house.until(job_id, "assigned")
        second = await house.worker(automatic=True)
        with trio.fail_after(40):
            job = await house.finished(job_id)
        assert (job.state, job.worker_id, job.tries) == ("succeeded", second.id, 0)
