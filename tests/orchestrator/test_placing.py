"""Jobs with a platform go where it is built, and hold up nobody where it is not."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.orchestrator.conftest import SHORT_LEASE, House, open_house

AMD, ARM = "linux/amd64", "linux/arm64"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path, memory=True) as opened:
        yield opened


async def parked(house: House, job_id: str, *, says: str) -> None:
    """Until this job waits for this reason."""
    version = 0
    while says not in str((await house.control.job(job_id)).waiting):
        version = await house.control.farm_changed(version)


async def test_a_job_goes_to_who_builds_its_platform(house: House) -> None:
    await house.worker(platforms=[AMD])
    emulating = await house.worker(platforms=[AMD], emulated=[ARM])
    first = await house.submit(platform=ARM)
    assert (await emulating.next_assignment()).name.job_id == first
    native = await house.worker(platforms=[ARM])
    second = await house.submit(platform="linux/arm64/v8")
    assert (await native.next_assignment()).name.job_id == second


async def test_nobody_builds_it_and_nobody_is_held_up(house: House) -> None:
    amd = await house.worker(slots=1, platforms=[AMD])
    waiting = [await house.submit(platform=ARM, priority=priority) for priority in (5, 5, 7)]
    for job_id in waiting:
        await parked(house, job_id, says="no worker in pool `default` builds linux/arm64")
    for _ in range(3):
        job_id = await house.submit()
        assignment = await amd.next_assignment()
        assert assignment.name.job_id == job_id
        await amd.end(assignment)
    # The first in line goes first once somebody comes.
    arm = await house.worker(slots=1, platforms=[ARM])
    order = []
    for _ in waiting:
        assignment = await arm.next_assignment()
        order.append(assignment.name.job_id)
        await arm.end(assignment)
    assert order == [waiting[2], waiting[0], waiting[1]]
    assert [(await house.finished(job_id)).attempt for job_id in waiting] == [1, 1, 1]


async def test_busy_builders_are_waited_for_aside(house: House) -> None:
    amd = await house.worker(slots=2, platforms=[AMD])
    arm = await house.worker(slots=1, platforms=[ARM])
    first, second = await house.submit(platform=ARM), await house.submit(platform=ARM)
    running = await arm.next_assignment()
    late = second if running.name.job_id == first else first
    await parked(house, late, says="the only slot for linux/arm64 is busy")
    plain = await house.submit()
    assert (await amd.next_assignment()).name.job_id == plain
    await arm.end(running)
    assert (await arm.next_assignment()).name.job_id == late


async def test_a_worker_that_learns_to_build_it_gets_it(house: House) -> None:
    worker = await house.worker(platforms=[AMD])
    job_id = await house.submit(platform=ARM)
    await parked(house, job_id, says="builds linux/arm64")
    worker.emulated = [ARM]
    await worker.report()
    assert (await worker.next_assignment()).name.job_id == job_id


async def test_a_canceled_one_leaves_its_place(house: House) -> None:
    await house.worker(platforms=[AMD])
    first, second = await house.submit(platform=ARM), await house.submit(platform=ARM)
    for job_id in (first, second):
        await parked(house, job_id, says="builds linux/arm64")
    assert (await house.control.cancel(first)).job.state == "canceled"
    arm = await house.worker(platforms=[ARM])
    assert (await arm.next_assignment()).name.job_id == second


async def test_who_is_drained_is_said(house: House) -> None:
    await house.worker(platforms=[AMD])
    arm = await house.worker(platforms=[ARM])
    await house.control.drain(arm.id, True)
    job_id = await house.submit(platform=ARM)
    await parked(house, job_id, says="every worker in pool `default` that builds linux/arm64 is draining")
    await house.control.drain(arm.id, False)
    assert (await arm.next_assignment()).name.job_id == job_id


async def test_what_stood_aside_is_found_again_after_a_restart(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.worker(platforms=[AMD])
        job_id = await house.submit(platform=ARM)
        await parked(house, job_id, says="builds linux/arm64")
    async with open_house(tmp_path) as house:
        arm = await house.worker(platforms=[ARM])
        assert (await arm.next_assignment()).name.job_id == job_id


async def test_one_whose_worker_is_lost_waits_aside_again(tmp_path: Path) -> None:
    async with open_house(tmp_path, memory=True, **SHORT_LEASE) as house:
        arm = await house.worker(platforms=[ARM])
        amd = await house.worker(platforms=[AMD])
        job_id = await house.submit(platform=ARM)
        assignment = await arm.next_assignment()
        arm.silent = True
        plain = await house.submit(platform=AMD)
        assert (await amd.next_assignment()).name.job_id == plain
        # Its worker is lost: it waits for another one, and nobody waits for it.
        await parked(house, job_id, says="builds linux/arm64")
        another = await house.worker(platforms=[ARM])
        again = await another.next_assignment()
        assert (again.name.job_id, again.name.attempt) == (job_id, assignment.name.attempt + 1)


async def test_without_a_word_a_worker_builds_for_the_machine_it_runs_on(house: House) -> None:
    worker = await house.worker()
    job_id = await house.submit(platform=AMD)
    assert (await worker.next_assignment()).name.job_id == job_id
    view = house.control.workers()[0]
    assert (view.platforms, view.emulated) == ([AMD], [])


async def test_several_platforms_and_nobody_else_to_come(tmp_path: Path) -> None:
    async with open_house(tmp_path, memory=True, **SHORT_LEASE) as house:
        worker = await house.worker(platforms=[AMD])
        job_id = await house.submit(platforms=[AMD, ARM], push=True, image="h.example/app")
        assert (await worker.next_assignment()).name.job_id == job_id
