"""A hand-off that may have arrived is undone only by its worker's word."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import trio

from blacktree.errors import BlacktreeError, NotAllowed, PeerLost
from blacktree.rpc.peer import Answer, Assignment, AttemptReport, ReportAnswer, StopAnswer, StopOrder
from tests.orchestrator.conftest import TOKEN, House, open_house
from tests.parts.toy_worker import ToyWorker


class Mumbling(ToyWorker):
    """Takes what it is handed the first time; its answers are these errors until they are used up.

    It reports nothing until it is told to stop: a report would say that the hand-off arrived, and nothing would be
    undone.
    """

    answers: list[BlacktreeError]
    takes = True

    def __init__(self) -> None:
        super().__init__()
        self._told = trio.Event()

    async def stop_jobs(self, orders: Sequence[StopOrder]) -> list[StopAnswer]:
        self._told.set()
        return await super().stop_jobs(orders)

    async def report(self, *attempts: AttemptReport) -> ReportAnswer:
        await self._told.wait()
        return await super().report(*attempts)

    async def run_jobs(self, assignments: Sequence[Assignment]) -> list[Answer]:
        if not self.answers:
            return await super().run_jobs(assignments)
        if self.takes:
            await super().run_jobs(assignments)
        self.takes = False
        raise self.answers.pop(0)


async def _join(house: House, worker: ToyWorker) -> None:
    await house.nursery.start(partial(worker.run, house.address, TOKEN, house.directory))
    while any(view.id == worker.id and "reached" in view.refusal for view in house.control.workers()):
        await trio.sleep(0.005)


@pytest.mark.parametrize("lost_first", [True, False])
@pytest.mark.parametrize("takes", [True, False])
async def test_a_hard_error_does_not_undo_what_may_have_arrived(tmp_path: Path, lost_first: bool, takes: bool) -> None:
    async with open_house(tmp_path, memory=True, lease_seconds=60.0) as house:
        worker = Mumbling()
        worker.answers = [PeerLost("the answer was lost")] * lost_first + [NotAllowed("not now")]
        worker.takes = takes
        await _join(house, worker)
        job_id = await house.submit()
        with trio.fail_after(40):
            order = await worker.orders.receive()
            assert order.name.job_id == job_id
            first = await house.until(job_id, "queued")
            assert [attempt.outcome for attempt in first.attempts] == ["returned"]
            assert first.tries == 0
            assignment = await worker.next_assignment()
            while assignment.name.attempt == 1:
                assignment = await worker.next_assignment()
            await worker.say(assignment)
            await worker.end(assignment)
            job = await house.finished(job_id)
        assert (job.state, job.attempt, job.tries) == ("succeeded", 2, 0)
        assert order.name.attempt == 1
