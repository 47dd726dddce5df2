"""An end that could not be proven waits out one lease, also where somebody asks again or the orchestrator restarts."""

import shutil
from pathlib import Path

import pytest
import trio

from blacktree.job import Outcome
from blacktree.rpc.peer import AttemptReport, Batch
from tests.orchestrator.conftest import TOKEN, House, open_house
from tests.parts.toy_worker import ToyWorker, open_worker

LEASE = 5.0
"""Longer than all may stand still: it runs out once its worker is silent, not before."""


async def _unproven(house: House, worker: ToyWorker, *, cancel: bool) -> str:
    job_id = await house.submit(max_attempts=1)
    assignment = await worker.next_assignment()
    await worker.say(assignment)
    await house.until(job_id, "running")
    if cancel:
        house.nursery.start_soon(house.control.cancel, job_id)
        await house.until(job_id, "canceling")
    outcome = Outcome(state="canceled" if cancel else "returned", proven=False)
    await worker.report(AttemptReport(name=assignment.name, batches=[Batch(number=2, outcome=outcome)]))
    # As a worker does: it forgets the attempt once its outcome is stored, not before.
    del worker.held[job_id]
    return job_id


@pytest.mark.parametrize("cancel", [False, True])
async def test_after_a_restart_it_still_waits_for_a_lease(tmp_path: Path, cancel: bool) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    async with open_house(first, lease_seconds=LEASE) as house:
        worker = await house.worker(honest_stop=False)
        job_id = await _unproven(house, worker, cancel=cancel)
        # What a kill -9 would leave at this moment.
        shutil.copytree(first / "state", second / "state")
        worker.silent = True
    again = ToyWorker(worker.id, secret=worker.secret)
    again.incarnation = worker.incarnation
    began = trio.current_time()
    async with open_house(second, lease_seconds=LEASE) as house:
        async with open_worker(again, house.address, TOKEN, second):
            job = await house.finished(job_id)
            assert trio.current_time() - began >= LEASE
            assert job.state == ("canceled" if cancel else "lost")
            assert [event["code"] for event in await house.events(job_id) if event["type"] == "notice"] == [
                "unproven",
                "unproven",
                "tail_lost",
            ]


async def test_to_ask_once_more_is_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blacktree.orchestrator.jobs.ASK_AGAIN_SECONDS", 0.05)
    async with open_house(tmp_path, memory=True, lease_seconds=LEASE) as house:
        worker = await house.worker(honest_stop=False)
        began = trio.current_time()
        job_id = await _unproven(house, worker, cancel=True)
        assert (await house.finished(job_id)).state == "canceled"
        assert trio.current_time() - began >= LEASE
