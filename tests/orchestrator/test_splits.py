"""Jobs in parts in a house: who builds what, what a cancel proves in each phase, and what a restart finds."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from blacktree.errors import Conflict, NotFound
from blacktree.job import Image, Outcome
from blacktree.rpc.peer import Assignment
from tests.orchestrator.conftest import SHORT_LEASE, House, open_house
from tests.parts.toy_worker import ToyWorker, failed, lines

AMD, ARM = "linux/amd64", "linux/arm64"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path, memory=True) as opened:
        yield opened


COMMIT = "c" * 40


def pushed(digest: str) -> Outcome:
    return Outcome(state="succeeded", image=Image(reference="r", id="i", digest=digest, references=["r"]))


async def both(house: House) -> tuple[ToyWorker, ToyWorker]:
    return await house.worker("amd", platforms=[AMD]), await house.worker("arm", platforms=[ARM])


async def submit(house: House, **more: object) -> str:
    return await house.submit(image="h.example/app", tags=["1"], platforms=[AMD, ARM], push=True, **more)


async def begun(amd: ToyWorker, arm: ToyWorker) -> tuple[Assignment, Assignment]:
    """Both parts, under way on their workers."""
    first = await amd.next_assignment()
    await amd.say(first, lines("one"), commit=COMMIT)
    return first, await arm.next_assignment()


async def until_parts(house: House, job_id: str, *states: str) -> None:
    """Until the parts that there are stand so."""
    version = 0
    while True:
        job = (await house.control.job(job_id)).job
        found = []
        for part in job.parts:
            try:
                found.append(str((await house.control.job(part.job_id)).job.state))
            except NotFound:
                found.append("")
        if found == list(states):
            return
        version = await house.control.farm_changed(version)


async def test_each_builds_its_own_and_one_puts_them_together(house: House) -> None:
    amd, arm = await both(house)
    job_id = await submit(house)
    first, second = await begun(amd, arm)
    assert (first.spec.platform, second.spec.platform) == (AMD, ARM)
    assert (second.commit, first.part, second.part, second.parts) == (COMMIT, True, True, [])
    assert first.spec.tags == [f"bt-{first.name.job_id}-part"]
    whole = (await house.control.job(job_id)).job
    assert (whole.state, whole.attempt, whole.commit) == ("running", 0, COMMIT)
    assert [part.job_id for part in whole.parts] == [first.name.job_id, second.name.job_id]
    await amd.end(first, pushed("sha256:amd"))
    with pytest.raises(Conflict):
        await house.control.retry((await house.finished(first.name.job_id)).id)
    await arm.end(second, pushed("sha256:arm"))
    last, worker = await whoever(amd, arm)
    assert (last.name.job_id, last.name.attempt, last.part, last.commit) == (job_id, 1, False, COMMIT)
    assert [(each.platform, each.digest) for each in last.parts] == [(AMD, "sha256:amd"), (ARM, "sha256:arm")]
    await worker.end(last, pushed("sha256:list"))
    job = await house.finished(job_id)
    assert (job.state, job.image and job.image.digest) == ("succeeded", "sha256:list")
    assert await house.states(job_id) == ["queued", "assigned", "running", "queued", "assigned", "running", "succeeded"]
    events = await house.events(job_id)
    named = [event["name"] for event in events if event["type"] == "step_finished"]
    assert sorted(named) == sorted(f"[{part.platform}] job {part.job_id}" for part in job.parts)


async def whoever(*workers: ToyWorker) -> tuple[Assignment, ToyWorker]:
    """The next assignment of any of them."""
    found: list[tuple[Assignment, ToyWorker]] = []

    async def wait(worker: ToyWorker) -> None:
        found.append((await worker.next_assignment(), worker))
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for worker in workers:
            nursery.start_soon(wait, worker)
    assert len(found) == 1
    return found[0]


async def test_a_part_that_fails_fails_the_whole_and_stops_the_others(house: House) -> None:
    amd, arm = await both(house)
    job_id = await submit(house)
    first, second = await begun(amd, arm)
    await arm.end(second, failed())
    job = await house.finished(job_id)
    assert (job.state, job.error and job.error.message) == ("failed", f"{ARM}: as the test wants")
    assert (await amd.orders.receive()).name == first.name
    assert (await house.control.job(first.name.job_id)).job.state == "canceled"


async def test_a_part_is_tried_again_by_itself(house: House) -> None:
    amd, arm = await both(house)
    job_id = await submit(house)
    first, second = await begun(amd, arm)
    await amd.end(first, pushed("sha256:amd"))
    await arm.end(second, failed(retryable=True))
    again = await arm.next_assignment()
    assert (again.name.job_id, again.name.attempt, again.commit) == (second.name.job_id, 2, COMMIT)
    await arm.end(again, pushed("sha256:arm"))
    last, worker = await whoever(amd, arm)
    await worker.end(last, pushed("sha256:list"))
    assert (await house.finished(job_id)).state == "succeeded"


async def test_a_cancel_waits_until_every_part_is_proven_gone(house: House) -> None:
    amd, arm = await both(house)
    arm.honest_stop = False
    job_id = await submit(house)
    first, second = await begun(amd, arm)
    answers = []

    async def cancel() -> None:
        answers.append((await house.control.cancel(job_id, reason="enough")).job)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel)
        assert (await arm.orders.receive()).reason == "enough"
        await house.until(first.name.job_id, "canceled")
        assert (await house.control.job(job_id)).job.state == "canceling"
        assert answers == []
        await arm.end(second, Outcome(state="canceled"))
    assert (answers[0].state, answers[0].cancel_reason) == ("canceled", "enough")


async def test_a_cancel_while_a_part_waits(house: House) -> None:
    amd, arm = await both(house)
    arm.refusal = "not now"
    await arm.report()
    job_id = await submit(house)
    first = await amd.next_assignment()
    await amd.end(first, pushed("sha256:amd"), lines("done"))
    version = 0
    while f"{ARM}: no worker in pool `default`" not in str((await house.control.job(job_id)).waiting):
        version = await house.control.farm_changed(version)
    assert (await house.control.cancel(job_id)).job.state == "canceled"
    await until_parts(house, job_id, "succeeded", "canceled")


async def test_a_cancel_while_the_parts_are_put_together(house: House) -> None:
    amd, arm = await both(house)
    job_id = await submit(house)
    first, second = await begun(amd, arm)
    await amd.end(first, pushed("sha256:amd"))
    await arm.end(second, pushed("sha256:arm"))
    await whoever(amd, arm)
    assert (await house.control.cancel(job_id)).job.state == "canceled"


async def test_a_lost_worker_costs_its_part_a_try(tmp_path: Path) -> None:
    async with open_house(tmp_path, memory=True, **SHORT_LEASE) as house:
        amd, arm = await both(house)
        job_id = await submit(house)
        first, second = await begun(amd, arm)
        arm.silent = True
        await amd.end(first, pushed("sha256:amd"))
        another = await house.worker(platforms=[ARM])
        again = await another.next_assignment()
        assert (again.name.job_id, again.name.attempt) == (second.name.job_id, 2)
        # What the lost one says now is not taken.
        assert (await arm.report()).known is False
        await another.end(again, pushed("sha256:again"))
        last, _ = await whoever(amd, another)
        assert (last.name.job_id, [each.digest for each in last.parts]) == (job_id, ["sha256:amd", "sha256:again"])


@asynccontextmanager
async def life(directory: Path) -> AsyncIterator[tuple[House, ToyWorker, ToyWorker]]:
    async with open_house(directory) as house:
        yield (house, *await both(house))


async def test_a_restart_between_the_parts(tmp_path: Path) -> None:
    async with life(tmp_path) as (house, amd, arm):
        job_id = await submit(house)
        first, second = await begun(amd, arm)
        await amd.end(first, pushed("sha256:amd"))
        await house.finished(first.name.job_id)
    async with life(tmp_path) as (house, amd, arm):
        again = await arm.next_assignment()
        assert again.name.job_id == second.name.job_id
        await arm.end(again, pushed("sha256:arm"))
        last, worker = await whoever(amd, arm)
        assert [each.digest for each in last.parts] == ["sha256:amd", "sha256:arm"]
        await worker.end(last, pushed("sha256:list"))
        assert (await house.finished(job_id)).state == "succeeded"


async def test_a_restart_before_the_parts_are_made_and_after_a_cancel(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        amd = await house.worker("amd", platforms=[AMD], slots=1)
        await house.worker("arm", platforms=[ARM], slots=1)
        job_id = await submit(house)
        await amd.next_assignment()
    async with open_house(tmp_path) as house:
        whole = (await house.control.job(job_id)).job
        assert (whole.state, len(whole.parts)) == ("running", 2)
        assert (await house.control.cancel(job_id)).job.state == "canceled"
