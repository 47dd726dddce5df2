"""What a restart must not lose: a running attempt's time limit; and what the dead must not keep from the living."""

import shutil
from pathlib import Path

import pytest
import trio

from blacktree.errors import NotAllowed
from blacktree.orchestrator import workers
from tests.orchestrator.conftest import TOKEN, open_house
from tests.parts.toy_worker import ToyWorker, open_worker


async def test_an_adopted_attempt_keeps_its_time_limit(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    async with open_house(first, lease_seconds=30.0) as house:
        worker = await house.worker()
        job_id = await house.submit(timeout_seconds=5.0)
        await worker.say(await worker.next_assignment())
        await house.until(job_id, "running")
        # What a kill -9 would leave at this moment.
        shutil.copytree(first / "state", second / "state")
        held = dict(worker.held)
    again = ToyWorker(worker.id, secret=worker.secret)
    again.incarnation, again.held, again.batches = worker.incarnation, held, dict.fromkeys(worker.batches, 1)
    async with open_house(second, lease_seconds=30.0) as house:
        async with open_worker(again, house.address, TOKEN, second):
            with trio.fail_after(40):
                order = await again.orders.receive()
                job = await house.finished(job_id)
    assert (order.name.job_id, order.why, job.state) == (job_id, "timed_out", "timed_out")


async def test_lost_workers_do_not_keep_new_ones_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "MAX_MEMBERS", 2)
    async with open_house(tmp_path, memory=True, lease_seconds=6.0) as house:
        first, second = await house.worker(), await house.worker()
        third = ToyWorker()
        third.side, third.address = first.side, first.address
        with pytest.raises(NotAllowed, match="2 workers already"):
            await third.register()
        second.silent = True
        while not any(view.state == "dead" for view in house.control.workers()):
            await trio.sleep(0.05)
        await third.register()
        assert {view.id for view in house.control.workers()} == {first.id, third.id}
