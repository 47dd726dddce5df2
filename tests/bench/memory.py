"""The orchestrator's memory: idle, and while a log of 1 GiB is written and read. See also `readers` and `shutdown`."""

import json
import time
from collections.abc import Iterator

import trio

from blacktree.client import Client
from tests.bench.bench import Bench
from tests.bench.celery_farm import heard
from tests.bench.daemons import open_farm
from tests.bench.figure import Figure
from tests.bench.proc import MIB, forget_peak, peak_mib, proportional_mib, resident_mib
from tests.bench.readers import open_readers
from tests.parts.whole_farm import WholeFarm, open_whole_farm

IDLE_MIB, LARGEST_MIB = 80.0, 300.0
LINE_BYTES = 1024


def measure(bench: Bench) -> Iterator[Figure]:
    """Idle as `blacktree orchestrator`; the log in a farm with one reader that follows, then read from its middle."""
    with open_farm(bench) as orchestrator:
        time.sleep(bench.size(5, 1))
        resident = resident_mib(orchestrator.orchestrator.pid)
        proportional = proportional_mib([orchestrator.orchestrator.pid])
    yield Figure(
        row="memory",
        name="orchestrator, idle, resident",
        value=resident,
        unit="MiB",
        target=f"at most {IDLE_MIB:.0f} MiB",
        reached=resident <= IDLE_MIB,
        note=f"{proportional:.0f} MiB proportional",
    )
    yield from _log(bench)


def _log(bench: Bench) -> Iterator[Figure]:
    size = bench.size(1024, 16)
    lines = size * MIB // LINE_BYTES
    with open_whole_farm(bench.new_directory("log")) as farm:
        farm.start("--slots", "1")
        assert farm.process is not None
        forget_peak(farm.process.pid)
        seconds = bench.run(_write, bench, farm, lines)
        written = peak_mib(farm.process.pid)
        forget_peak(farm.process.pid)
        opened_ms = bench.run(_open_in_the_middle, farm, lines)
        opened = peak_mib(farm.process.pid)
    yield Figure(
        row="memory",
        name=f"orchestrator, peak while a log of {size} MiB is written and followed",
        value=written,
        unit="MiB",
        target=f"at most {LARGEST_MIB:.0f} MiB",
        reached=written <= LARGEST_MIB,
        note=f"{size / seconds:.0f} MiB/s from the first line to the reader's last, every line there",
        details={"seconds": seconds, "lines": lines},
    )
    yield Figure(
        row="memory",
        name=f"orchestrator, peak while the log of {size} MiB is opened at ten places",
        value=opened,
        unit="MiB",
        target=f"at most {LARGEST_MIB:.0f} MiB",
        reached=opened <= LARGEST_MIB,
        note=f"a piece from any place within {opened_ms:.0f} ms (the slowest)",
    )


async def _write(bench: Bench, farm: WholeFarm, lines: int) -> float:
    script = json.dumps([{"step": "log", "lines": lines, "line": "{n} ".ljust(LINE_BYTES - 8, "x")}])
    async with Client(farm.url, (farm.state / "token").read_text().strip()) as client:
        worker = (await client.workers())[0]["id"]
        await client.drain(worker)
        arguments = {"SCRIPT": script}
        job = await client.submit({"repository": "https://git.example/app.git", "build_args": arguments})
        with open_readers(bench, farm, job["id"], 1) as process:
            await trio.to_thread.run_sync(heard, process, abandon_on_cancel=True)
            await client.drain(worker, undo=True)
            found = await trio.to_thread.run_sync(heard, process, abandon_on_cancel=True)
        attempts = (await client.job(job["id"]))["attempts"]
    if found["gaps"] or found["fewest"] != lines:
        said = farm.log.read_text()[-400:]
        raise RuntimeError(f"{found['fewest']} of {lines} lines, {found['gaps']} gaps, {attempts}: {said}")
    return float(found["last"] - found["first"])


async def _open_in_the_middle(farm: WholeFarm, lines: int) -> float:
    """The slowest of ten readings, in milliseconds."""
    slowest = 0.0
    async with Client(farm.url, (farm.state / "token").read_text().strip()) as client:
        job = (await client.jobs(limit=1))["jobs"][0]["id"]
        for part in range(10):
            first = 1 + lines * part // 10
            began = trio.current_time()
            events = (await client.events(job, first, limit=1000))["events"]
            slowest = max(slowest, trio.current_time() - began)
            # The answer has as many as fit into it; they must be the right ones.
            if not events or [event["seq"] for event in events] != list(range(first, first + len(events))):
                raise RuntimeError(f"asked for events from {first}, got {len(events)} others")
    return slowest * 1000
