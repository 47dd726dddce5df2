"""A job whose row cannot be read goes aside with the reason; it holds up neither its pool nor the end of the daemon."""

import sqlite3
from pathlib import Path

import pytest
import trio

from blacktree.broker.base import DEAD_QUEUE
from blacktree.errors import NotFound, StorageFailed
from blacktree.job import Job
from blacktree.orchestrator import daemon, parts, reconcile
from blacktree.orchestrator.recent import Recent
from blacktree.storage.base import Commit, Decide
from blacktree.storage.memory import MemoryStore
from tests.orchestrator.conftest import open_house


class DamagedStore(MemoryStore):
    """One call no longer gets through to this job; what is raised is what a row that cannot be decoded raises."""

    def __init__(self, call: str) -> None:
        super().__init__()
        self.call = call
        self.damaged = ""
        self.tried = 0
        self.looks = 0

    def _look(self, call: str, job_id: str) -> None:
        if (call, job_id) == (self.call, self.damaged):
            self.tried += 1
            raise StorageFailed("a job on record cannot be read", code="state_damaged", again=False)

    async def queued_by_pool(self) -> dict[str, int]:
        self.looks += 1
        return await super().queued_by_pool()

    async def get(self, job_id: str) -> Job:
        self._look("get", job_id)
        return await super().get(job_id)

    async def change(self, job_id: str, decide: Decide) -> Commit:
        self._look("change", job_id)
        return await super().change(job_id, decide)


@pytest.mark.parametrize("call", ["get", "change"])
async def test_a_job_that_cannot_be_read_goes_aside(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DamagedStore(call)
    monkeypatch.setattr(daemon, "open_store", lambda *_, **__: store)
    monkeypatch.setattr(parts, "Recent", lambda: Recent(0))
    async with open_house(tmp_path, memory=True) as house:
        store.damaged = await house.submit()
        good = await house.submit()
        await house.worker(slots=1, automatic=True)
        with trio.fail_after(40):
            assert (await house.finished(good)).state == "succeeded"
            while not (dead := await store.queue_take(DEAD_QUEUE, 10, ())):
                await trio.sleep(0.01)
            while not any(event.type == "job_damaged" for event in await house.control.farm_events(1, 100)):
                await trio.sleep(0.01)
        assert store.tried == 1
        assert [item.message_id for item in dead] == [store.damaged]
        assert "cannot be read" in str(dead[0].headers)
        [event] = [event for event in await house.control.farm_events(1, 100) if event.type == "job_damaged"]
        assert event.subject == store.damaged


async def test_the_ticket_of_a_job_put_aside_is_not_published_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays queued on record and in no queue, as a job whose ticket was lost does."""
    store = DamagedStore("change")
    monkeypatch.setattr(daemon, "open_store", lambda *_, **__: store)
    monkeypatch.setattr(reconcile, "LOOK_SECONDS", 0.02)
    async with open_house(tmp_path, memory=True) as house:
        store.damaged = await house.submit()
        await house.worker(slots=1, automatic=True)
        while not await store.queue_take(DEAD_QUEUE, 10, ()):
            await trio.sleep(0.01)
        # Only now: a ticket on its way to the dispatcher must not look like one that is lost.
        monkeypatch.setattr(reconcile, "SETTLED_SECONDS", 0.0)
        looks = store.looks
        while store.looks < looks + 5:
            await trio.sleep(0.01)
        assert len(await store.queue_take(DEAD_QUEUE, 10, ())) == store.tried == 1


async def test_a_row_that_cannot_be_decoded_does_not_stop_the_start(tmp_path: Path) -> None:
    """A queued one, one under way and an ended one: told, passed over, and everything else goes on."""
    async with open_house(tmp_path) as house:
        worker = await house.worker(slots=1)
        ended = await house.submit()
        await worker.end(await worker.next_assignment())
        running = await house.submit()
        await worker.next_assignment()
        queued, good = await house.submit(), await house.submit()
        # As a crash, so that what is under way stays so.
        copy = tmp_path / "crashed"
        copy.mkdir()
        with sqlite3.connect(tmp_path / "state" / "blacktree.db") as one, sqlite3.connect(copy / "blacktree.db") as two:
            one.backup(two)
    bad = {ended, running, queued}
    with sqlite3.connect(copy / "blacktree.db") as connection:
        connection.executemany("UPDATE job SET body = ? WHERE id = ?", [(b"\xc1rubbish", id) for id in bad])
    copy.chmod(0o700)
    (tmp_path / "state").rename(tmp_path / "before")
    copy.rename(tmp_path / "state")
    async with open_house(tmp_path, retention_days=1e-9) as house:
        await house.worker(slots=1, automatic=True)
        assert (await house.finished(good)).state == "succeeded"
        listed = await house.control.jobs([])
        assert bad & {view.job.id for view in listed.jobs} == set()
        with trio.fail_after(40):
            while True:
                events = await house.control.farm_events(1, 100)
                if {running, queued} <= {each.subject for each in events if each.type == "job_damaged"}:
                    break
                await trio.sleep(0.01)
            # What has ended is forgotten in its time, readable or not.
            while not any(each.type == "jobs_forgotten" for each in await house.control.farm_events(1, 100)):
                await trio.sleep(0.01)
        with pytest.raises(NotFound):
            await house.control.job(ended)
        with pytest.raises(StorageFailed):
            await house.control.job(queued)
