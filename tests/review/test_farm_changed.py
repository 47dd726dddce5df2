"""Whoever watches the farm is told of workers and of farm events too, not only of jobs."""

from pathlib import Path

import trio

from tests.orchestrator.conftest import SHORT_LEASE, House, open_house
from tests.orchestrator.conftest import house as house


async def _after(house: House, version: int) -> int:
    with trio.fail_after(40):
        return await house.control.farm_changed(version)


async def _quiet(house: House) -> int:
    """The version once nothing changes any more."""
    version = 0
    while True:
        with trio.move_on_after(1.2) as scope:
            version = await house.control.farm_changed(version)
        if scope.cancelled_caught:
            return version


async def test_a_worker_that_joins_drains_or_is_lost_is_told(tmp_path: Path) -> None:
    async with open_house(tmp_path, memory=True, **SHORT_LEASE) as house:
        await joins_drains_and_is_lost(house)


async def joins_drains_and_is_lost(house: House) -> None:
    version = await _quiet(house)
    worker = await house.worker()
    await _after(house, version)
    version = await _quiet(house)
    await house.control.drain(worker.id, True)
    await _after(house, version)
    version = await _quiet(house)
    worker.silent = True
    with trio.fail_after(40):
        while house.control.workers()[0].state != "dead":
            version = await house.control.farm_changed(version)


async def test_a_farm_event_is_told_once_it_can_be_read(house: House) -> None:
    version = await _quiet(house)
    seen = len(await house.control.farm_events(1, 100))
    await house.worker()
    with trio.fail_after(40):
        while not any(event.type == "worker_joined" for event in await house.control.farm_events(seen + 1, 100)):
            version = await house.control.farm_changed(version)
