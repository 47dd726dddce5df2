"""Log lines from one build to 1, 100 and 1,000 websocket readers, and how long a line takes; beside a bare loop."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from blacktree.client import Client
from tests.bench.bench import ROOT, Bench, environment, module, running
from tests.bench.celery_farm import heard
from tests.bench.figure import Figure
from tests.bench.proc import cpu_seconds, forget_peak, peak_mib, resident_mib
from tests.bench.stamping import NAME, installed
from tests.parts.whole_farm import WholeFarm, open_whole_farm

# What each number of readers gets: so that no case takes more than some seconds.
FULL = ((1, 200_000), (100, 50_000), (1000, 10_000))
QUICK = ((1, 20_000), (20, 5_000))
LINE = "{n}".ljust(80, "x")
RATE, LINE_BYTES = 100.0, 80
SHARE, P50_MS, P99_MS, LARGEST_MIB = 0.8, 60.0, 200.0, 300.0


def measure(bench: Bench) -> Iterator[Figure]:
    """Floods first, then a line each 10 ms to see how late it comes."""
    with open_farm(bench) as farm:
        for readers, lines in QUICK if bench.quick else FULL:
            yield from _flood(bench, farm, readers, lines)
        readers, lines = bench.size(100, 20), bench.size(1500, 100)
        found = _run(bench, farm, readers, {"STAMPS": json.dumps([RATE, lines, LINE_BYTES])}, stamps=True)
        _check(found, readers, lines)
        for key, limit in (("p50_ms", P50_MS), ("p99_ms", P99_MS)):
            yield Figure(
                row="readers",
                name=f"line printed to reader has it, {readers} readers, {RATE:.0f} lines/s: {key[:3]}",
                value=found[key],
                unit="ms",
                target=f"under {limit:.0f} ms",
                reached=found[key] < limit,
                details=found,
            )


@contextmanager
def open_farm(bench: Bench) -> Iterator[WholeFarm]:
    """A farm as `up`, with the provider that prints the time."""
    home = bench.new_directory("readers")
    path = os.pathsep.join([str(installed(home / "provider")), str(ROOT)])
    with open_whole_farm(home, PYTHONPATH=path, BLACKTREE_WORKER_PROVIDER=NAME) as farm:
        farm.start("--slots", "1")
        yield farm


def _flood(bench: Bench, farm: WholeFarm, readers: int, lines: int) -> Iterator[Figure]:
    assert farm.process is not None
    script = json.dumps([{"step": "flood", "lines": lines, "line": LINE}])
    record = bench.directory / "frames"
    forget_peak(farm.process.pid)
    before, used = resident_mib(farm.process.pid), cpu_seconds(farm.process.pid)
    found = _run(bench, farm, readers, {"SCRIPT": script}, record=record)
    memory, used = peak_mib(farm.process.pid), cpu_seconds(farm.process.pid) - used
    _check(found, readers, lines)
    again = _again(bench, farm, readers, found["job"])
    _check(again, readers, lines)
    bare = _bare(bench, record, readers)
    _check(bare, readers, lines)
    rate, again_rate, bare_rate = (lines / max(1e-6, each["last"] - each["first"]) for each in (found, again, bare))
    yield Figure(
        row="readers",
        name=f"lines/s from one build to {readers} reader{'s' if readers > 1 else ''} ({lines} lines)",
        value=rate,
        unit="/s",
        beside="/s bare loop, same bytes",
        beside_value=bare_rate,
        target=f"{SHARE} of it",
        reached=rate >= SHARE * bare_rate,
        details={"readers": found, "bare": bare},
    )
    yield Figure(
        row="readers",
        name=f"the same from the store, after the build, to {readers}",
        value=again_rate,
        unit="/s",
        beside="/s bare loop, same bytes",
        beside_value=bare_rate,
    )
    if readers == max(each for each, _ in (QUICK if bench.quick else FULL)):
        yield Figure(
            row="readers",
            name=f"farm's CPU per reader, {readers} readers, {lines} lines",
            value=1000 * used / readers,
            unit="ms",
        )
        yield Figure(
            row="readers",
            name=f"farm's memory per reader, {readers} readers (growth of the peak)",
            value=1024 * max(0.0, memory - before) / readers,
            unit="KiB",
        )
        yield Figure(
            row="memory",
            name=f"orchestrator, peak with {readers} readers",
            value=memory,
            unit="MiB",
            target=f"at most {LARGEST_MIB:.0f} MiB",
            reached=memory <= LARGEST_MIB,
        )


def _check(found: dict[str, Any], readers: int, lines: int) -> None:
    if found["gaps"] or found["fewest"] != lines or found["most"] != lines:
        raise RuntimeError(f"{readers} readers got other than {lines} lines: {found}")


def _run(
    bench: Bench,
    farm: WholeFarm,
    readers: int,
    arguments: dict[str, str],
    *,
    stamps: bool = False,
    record: Path | None = None,
) -> dict[str, Any]:
    """One build, held back until every reader is there. What the readers say of it."""

    async def drive() -> dict[str, Any]:
        async with Client(farm.url, (farm.state / "token").read_text().strip()) as client:
            while not (workers := await client.workers()):
                await trio.sleep(0.05)
            worker = workers[0]["id"]
            await client.drain(worker)
            job = await client.submit({"repository": "https://git.example/app.git", "build_args": arguments})
            with open_readers(bench, farm, job["id"], readers, stamps=stamps, record=record) as process:
                await trio.to_thread.run_sync(heard, process, abandon_on_cancel=True)
                await client.drain(worker, undo=True)
                found = await trio.to_thread.run_sync(heard, process, abandon_on_cancel=True)
            return found | {"job": job["id"], "attempts": (await client.job(job["id"]))["attempts"]}

    return bench.run(drive)


def _again(bench: Bench, farm: WholeFarm, readers: int, job_id: str) -> dict[str, Any]:
    """Readers that come when all is over."""
    with open_readers(bench, farm, job_id, readers) as process:
        heard(process)
        return heard(process)


@contextmanager
def open_readers(
    bench: Bench, farm: WholeFarm, job_id: str, count: int, *, stamps: bool = False, record: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Readers of one job in a process of their own; it says a line when all are there and one when all are done."""
    command = module("reader_client", farm.url, job_id, str(count), "stamps" if stamps else "-", str(record or "-"))
    environ = environment(BENCH_TOKEN=(farm.state / "token").read_text().strip())
    log = bench.directory / "readers.log"
    with running(command, environ, log, stdout=subprocess.PIPE) as process:
        yield process


def _bare(bench: Bench, record: Path, readers: int) -> dict[str, Any]:
    """The same bytes, from a loop that does nothing but send, to the same readers."""
    log = bench.directory / "bare.log"
    with running(module("bare_loop", str(record), str(readers)), environment(), log, stdout=subprocess.PIPE) as server:
        url = heard(server)["url"]
        command = module("reader_client", url, "none", str(readers), "-", "-")
        began = time.monotonic()
        with running(command, environment(BENCH_TOKEN="none"), log, stdout=subprocess.PIPE) as process:
            heard(process)
            found = heard(process)
    return found | {"whole_seconds": time.monotonic() - began}
