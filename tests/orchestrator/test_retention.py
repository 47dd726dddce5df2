"""Old jobs go when the operator wants it, and only then."""

from pathlib import Path

import pytest
import trio

from blacktree.errors import NotFound
from tests.orchestrator.conftest import open_house


async def test_ended_jobs_are_forgotten_and_others_are_not(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        old, waiting = await house.submit(pool="arm"), await house.submit()
        await house.control.cancel(old)
    async with open_house(tmp_path, retention_days=1e-9) as house:
        with trio.fail_after(40):
            while True:
                try:
                    await house.control.job(old)
                except NotFound:
                    break
                await trio.sleep(0.01)
        assert (await house.control.job(waiting)).job.state == "queued"
        # Told after it was done, by a task of its own.
        while not any(event.type == "jobs_forgotten" for event in await house.control.farm_events(1, 100)):
            await trio.sleep(0.01)


async def test_nothing_is_forgotten_by_default(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        job_id = await house.submit()
        await house.control.cancel(job_id)
    async with open_house(tmp_path) as house:
        assert (await house.control.job(job_id)).job.state == "canceled"
        with pytest.raises(NotFound):
            await house.control.job("another")
