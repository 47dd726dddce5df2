"""SIGTERM to a farm with 50 running builds and 10,000 queued jobs, until it has ended; and what so many jobs weigh."""

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator

import trio

from blacktree.client import Client
from tests.bench.bench import Bench
from tests.bench.figure import Figure
from tests.bench.proc import forget_peak, peak_mib, resident_mib
from tests.parts.whole_farm import WholeFarm, open_whole_farm

FULL_GRACE, QUICK_GRACE = 3, 1
ALLOWED_SECONDS = 2.0
END_SECONDS = 60.0
LARGEST_MIB = 300.0
CALLERS = 8
SCRIPT = json.dumps([{"step": "long", "seconds": 3600}])


def measure(bench: Bench) -> Iterator[Figure]:
    """The running builds never end by themselves: the farm has to stop them and hand their jobs back."""
    building, queued = bench.size(50, 5), bench.size(10_000, 100)
    allowed = bench.size(FULL_GRACE, QUICK_GRACE)
    home = bench.new_directory("end")
    grace = {f"BLACKTREE_{part}_SHUTDOWN_GRACE_SECONDS": str(allowed) for part in ("ORCHESTRATOR", "WORKER")}
    with open_whole_farm(home, **grace) as farm:
        farm.start("--slots", str(building))
        process = farm.process
        assert process is not None
        forget_peak(process.pid)
        before = resident_mib(process.pid)
        per_second = bench.run(_fill, farm, building, queued)
        after, peak = resident_mib(process.pid), peak_mib(process.pid)
        seconds = _end(process)
        states = _states(farm)
        said = farm.log.read_text()[-600:]
    if process.returncode != 0 or states != {"queued": building + queued}:
        raise RuntimeError(f"exit code {process.returncode}, jobs on record: {states}: {said}")
    yield Figure(
        row="shutdown",
        name=f"SIGTERM with {building} running builds and {queued} queued jobs, beyond the grace of {allowed} s",
        value=seconds - allowed,
        unit="s",
        target=f"under {ALLOWED_SECONDS:.0f} s",
        reached=seconds - allowed < ALLOWED_SECONDS,
        note=f"exit code 0, and all {building + queued} jobs on record as queued",
    )
    yield Figure(
        row="memory",
        name=f"orchestrator, {queued} queued jobs, peak while they come in",
        value=peak,
        unit="MiB",
        target=f"at most {LARGEST_MIB:.0f} MiB",
        reached=peak <= LARGEST_MIB,
        note=f"{before:.0f} MiB before; {(after - before) * 1024 / queued:.2f} KiB a queued job",
        details={"before_mib": before, "after_mib": after, "submitted_per_s": per_second},
    )


async def _fill(farm: WholeFarm, building: int, queued: int) -> float:
    spec: dict[str, object] = {"repository": "https://git.example/app.git", "build_args": {"SCRIPT": SCRIPT}}
    async with Client(farm.url, (farm.state / "token").read_text().strip()) as client:
        for _ in range(building):
            await client.submit(spec)
        while len((await client.jobs(["running"], limit=building))["jobs"]) < building:
            await trio.sleep(0.05)
        began = trio.current_time()
        # A caller has a client to itself: one keeps only a few idle connections.
        async with trio.open_nursery() as nursery:
            for number in range(CALLERS):
                nursery.start_soon(_submit, farm, spec, queued // CALLERS + (number < queued % CALLERS))
        return queued / (trio.current_time() - began)


async def _submit(farm: WholeFarm, spec: dict[str, object], count: int) -> None:
    async with Client(farm.url, (farm.state / "token").read_text().strip()) as client:
        for _ in range(count):
            await client.submit(spec)


def _end(process: "subprocess.Popen[str]") -> float:
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(END_SECONDS)
    return time.monotonic() - began


def _states(farm: WholeFarm) -> dict[str, int]:
    """What is on record when nobody is left to ask."""
    connection = sqlite3.connect(farm.state / "blacktree.db")
    try:
        return dict(connection.execute("select state, count(*) from job group by state").fetchall())
    finally:
        connection.close()
