"""A job whose row cannot be read goes aside with the reason; it holds up neither its pool nor the end of the daemon."""

from pathlib import Path

import pytest
import trio

from blacktree.broker.base import DEAD_QUEUE
from blacktree.errors import StorageFailed
from blacktree.job import Job
from blacktree.orchestrator import daemon
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

    def _look(self, call: str, job_id: str) -> None:
        if (call, job_id) == (self.call, self.damaged):
            self.tried += 1
            raise StorageFailed("a job on record cannot be read", code="state_damaged", again=False)

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
    monkeypatch.setattr(daemon, "Recent", lambda: Recent(0))
    async with open_house(tmp_path, memory=True) as house:
        store.damaged = await house.submit()
        good = await house.submit()
        await house.worker(slots=1, automatic=True)
        with trio.fail_after(5):
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
