"""A message from the queue whose idempotency key names an earlier job: the slot is held by the job that runs there."""

from pathlib import Path

import msgspec
import trio

from blacktree.clock import now
from blacktree.job import Job, JobState
from blacktree.orchestrator import moves
from blacktree.spec import JobSpec
from blacktree.storage.base import QueueItem
from tests.orchestrator.conftest import open_house
from tests.storage.test_sqlite import opened


async def test_the_slot_is_counted_for_the_job_that_has_it_and_is_free_again_afterwards(tmp_path: Path) -> None:
    spec = JobSpec(repository="https://x/y", idempotency_key="k")
    job = Job(id="first", state=JobState.QUEUED, spec=spec, created_at=now(), queued_at=now())
    message = {"id": "second", "spec": {"repository": spec.repository, "idempotency_key": "k"}}
    async with opened(tmp_path / "state") as store:
        await store.create(job, [], [moves.ticket(job)])
        # It lies there before the ticket of the earlier job comes.
        await store.queue_put("execute.queue", [QueueItem(body=msgspec.json.encode(message), priority=9)])
    async with open_house(tmp_path) as house:
        with trio.fail_after(40):
            worker = await house.worker("w")
            assignment = await worker.next_assignment()
            assert assignment.name.job_id == "first"
            # The message may be looked at just now, with the other slot in hand.
            while house.control.workers()[0].jobs != ["first"]:
                await trio.sleep(0.01)
            # What a worker holds is counted anew when it registers.
            await worker.register()
            await worker.say(assignment)
            await worker.end(assignment)
            await house.finished("first")
            while house.control.workers()[0].jobs:
                await trio.sleep(0.01)
