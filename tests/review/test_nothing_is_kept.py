"""Thousands of jobs later nothing of them is left in memory: object counts, after every one has ended."""

import gc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

from blacktree.job import ENDED, Job
from blacktree.orchestrator import daemon
from blacktree.orchestrator.held import Held
from blacktree.rpc.peer import Assignment
from blacktree.storage.writer import _MOST_CACHED as CACHED
from tests.orchestrator.conftest import House, open_house
from tests.parts.toy_worker import ToyWorker

JOBS = 2_000
AT_ONCE = 200


async def _submit(house: House, ids: list[str], numbers: Any) -> None:
    for number in numbers:
        job_id = await house.submit(repository=f"https://x/{number % 50}")
        ids.append(job_id)
        match number % 100:
            case 0:
                await house.control.cancel(job_id)
            case 1:
                async with house.control.follow(job_id, 1) as reader:
                    async for _ in reader:
                        pass


@pytest.mark.timeout(120)
async def test_ended_jobs_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    houses: list[daemon.House] = []
    build = daemon._build

    async def keeping(*args: Any) -> daemon.House:
        houses.append(await build(*args))
        return houses[0]

    monkeypatch.setattr(daemon, "_build", keeping)
    async with open_house(tmp_path, lease_seconds=30.0) as house:
        [inside] = houses
        for _ in range(4):
            await house.worker(slots=32, automatic=True)
        before = _objects()
        ids: list[str] = []
        peaks: Counter[str] = Counter()
        began = trio.current_time()
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                for lane in range(AT_ONCE):
                    nursery.start_soon(_submit, house, ids, range(lane, JOBS, AT_ONCE))
                while not peaks["book"] or not peaks["silent jobs"] or not peaks["fan-outs"]:
                    # The probe sees what there is while there is something.
                    await trio.sleep(0.01)
                    peaks |= Counter(_left(inside))
            while sum(number for state, number in (await house.control.counts()).items() if state in ENDED) < JOBS:
                await trio.sleep(0.05)
                peaks |= Counter(_left(inside))
            print(f"{JOBS} jobs in {trio.current_time() - began:.1f} s; at most {dict(peaks)}")
        assert len(set(ids)) == JOBS
        await _settled(inside)
        assert _left(inside) == {}
        toys = [worker for worker in gc.get_objects() if isinstance(worker, ToyWorker)]
        assert not any(toy.held for toy in toys)
        for toy in toys:
            while toy.assigned.statistics().current_buffer_used:
                await toy.next_assignment()
        # Nor does anybody else keep them; the store's own cache is bounded.
        counts = _objects()
        counts.subtract(before)
        print({kind.__name__: counts[kind] for kind in (Held, Job, Assignment, trio.CancelScope, trio.Event)})
        assert counts[Held] <= 0
        assert counts[Job] <= 2 * CACHED, counts[Job]
        assert counts[Assignment] <= 64 * len(toys), counts[Assignment]
        # Trio keeps up to a thousand deadlines that have passed before it clears its heap.
        assert counts[trio.CancelScope] < 1_000 < JOBS, counts[trio.CancelScope]
        assert counts[trio.Event] < 500, counts[trio.Event]


def _objects() -> Counter[type]:
    """How many there are of each type; earlier tests in this process may have left some."""
    gc.collect()
    return Counter(type(each) for each in gc.get_objects())


async def _settled(inside: daemon.House) -> None:
    """The last outcomes are on record; the tasks that followed them end in their own time."""
    with trio.move_on_after(40):
        while _left(inside):
            await trio.sleep(0.02)


def _left(inside: daemon.House) -> dict[str, int]:
    """How much of ended jobs each part still holds, where it is anything."""
    members = list(inside.workers._members.values())
    parts: dict[str, Any] = {
        "ends waited for": inside.journal._ends,
        "fan-outs": inside.journal._fanouts,
        "silent jobs": inside.relay._silent,
        "messages": inside.relay._pending,
        "back-offs": inside.delays._due,
        "book": inside.book,
        "recent": inside.recent._jobs,
        "jobs of workers": [job for member in members for job in member.jobs],
        "hand-offs": [each for member in members for each in member.run_job._waiting],
        "stops": [each for member in members for each in member.stop_job._waiting],
    }
    return {name: len(part) for name, part in parts.items() if len(part)}
