"""Cancel asked until answered with its proof, on the real engine; beside closing the engine's socket directly."""

import itertools
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any

import trio

from blacktree.client import Client
from tests.bench import engine_api
from tests.bench.bench import Bench, environment, running
from tests.bench.building import BuildingFarm, Repository, open_building_farm
from tests.bench.figure import Figure, percentile
from tests.parts.engine import processes_with

P99_SECONDS, LOADED_SECONDS = 1.0, 2.0
START_SECONDS = 20.0
BUSY = 2
# A child in the shell's group, one in a session of its own, and a shell that ignores SIGTERM.
DOCKERFILE = """FROM {base}
ARG MARK
RUN trap '' TERM; sleep $MARK & setsid sleep $MARK & wait
"""
QUICK_ONE = "FROM {base}\nENV NEXT=1\n"
_marks = itertools.count(10_000_000 + secrets.randbelow(80_000_000))


def measure(bench: Bench) -> Iterator[Figure]:
    """One slot, and a further job that waits for it: when that one is assigned, the slot was free."""
    with open_building_farm(bench, slots=1) as farm:
        files = {"Dockerfile": DOCKERFILE.format(base=farm.base).encode()}
        stubborn = Repository(bench.new_directory("cancel") / "app", files)
        files = {"Dockerfile": QUICK_ONE.format(base=farm.base).encode()}
        following = Repository(bench.new_directory("cancel") / "next", files)
        bench.run(_cancels, farm, stubborn, following, 1)
        direct = [_close(farm, stubborn) for _ in range(bench.size(10, 1))]
        calm = bench.run(_cancels, farm, stubborn, following, bench.size(20, 2))
        with _busy(bench):
            loaded = bench.run(_cancels, farm, stubborn, following, bench.size(15, 1))
    yield from _figures("", calm, direct, P99_SECONDS)
    yield from _figures(f", {BUSY} busy loops beside", loaded, None, LOADED_SECONDS)
    left = sum(each["left"] for each in calm + loaded)
    yield Figure(
        row="cancel",
        name=f"processes left after {len(calm + loaded)} cancels",
        value=left,
        unit="",
        target="none, ever",
        reached=left == 0,
    )


def _figures(what: str, found: list[dict[str, Any]], direct: list[float] | None, limit: float) -> Iterator[Figure]:
    for part, name in ((0.5, "p50"), (0.99, "p99")):
        value = percentile([each["answered"] for each in found], part)
        yield Figure(
            row="cancel",
            name=f"asked to answered with proof{what}: {name} of {len(found)}",
            value=value * 1000,
            unit="ms",
            beside="ms from closing the engine's socket to the last process gone" if direct else "",
            beside_value=percentile(direct, part) * 1000 if direct else None,
            target=f"under {limit:.0f} s" if part > 0.5 else "",
            reached=value < limit if part > 0.5 else None,
            note="the p99 of so few is the largest" if part > 0.5 else "",
            details={"cancels": found, "direct_s": direct},
        )
    yield Figure(
        row="cancel",
        name=f"asked to slot taken by the next job{what}: p50",
        value=percentile([each["next"] for each in found], 0.5) * 1000,
        unit="ms",
        note=f"largest {max(each['next'] for each in found) * 1000:.0f} ms",
    )


async def _cancels(farm: BuildingFarm, stubborn: Repository, following: Repository, count: int) -> list[dict[str, Any]]:
    async with farm.client() as client:
        return [await _cancel(client, farm, stubborn, following) for _ in range(count)]


async def _cancel(client: Client, farm: BuildingFarm, stubborn: Repository, following: Repository) -> dict[str, Any]:
    mark = str(next(_marks))
    job = await client.submit(farm.spec(stubborn, build_args={"MARK": mark}))
    waiting = await client.submit(farm.spec(following))
    with trio.fail_after(START_SECONDS):
        while len(processes_with(mark)) < 2:
            await trio.sleep(0.02)
    asked, began = time.time(), trio.current_time()
    job = await client.cancel(job["id"])
    answered = trio.current_time() - began
    left = len(processes_with(mark))
    if job["state"] != "canceled":
        raise RuntimeError(f"the canceled job ended {job['state']}: {job['error']}")
    await _ended(client, waiting["id"])
    events = (await client.events(waiting["id"]))["events"]
    taken = next(each for each in events if each["type"] == "state" and each["to"] == "assigned")
    free = datetime.fromisoformat(taken["time"]).timestamp() - asked
    return {"answered": answered, "left": left, "next": free}


async def _ended(client: Client, job_id: str) -> None:
    async with client.watch(job_id) as watch:
        async for _ in watch:
            pass
    if watch.job["state"] != "succeeded":
        raise RuntimeError(f"the next job ended {watch.job['state']}: {watch.job['error']}")


def _close(farm: BuildingFarm, stubborn: Repository) -> float:
    """Seconds from closing the connection of a build to the end of its last process."""
    mark = str(next(_marks))
    with engine_api.begun(
        farm.socket, engine_api.context(stubborn.files), buildargs=f'{{"MARK":"{mark}"}}', no_cache=True
    ):
        _until(lambda: len(processes_with(mark)) >= 2)
        began = time.monotonic()
    _until(lambda: not processes_with(mark))
    return time.monotonic() - began


def _until(condition: Any) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the build's processes did not come or go in time")
        time.sleep(0.002)


@contextmanager
def _busy(bench: Bench) -> Iterator[None]:
    """Loops that want every core."""
    command = [sys.executable, "-c", "while True: pass"]
    with ExitStack() as stack:
        for _ in range(BUSY):
            process: subprocess.Popen[str]
            process = stack.enter_context(running(command, environment(), bench.directory / "busy.log"))
            assert process.poll() is None
        yield
