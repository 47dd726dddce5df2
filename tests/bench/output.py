"""One build that prints 200,000 lines, until all are stored and readable; beside the engine's API, output discarded."""

import re
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import trio

from blacktree.client import Client
from tests.bench import engine_api
from tests.bench.bench import Bench
from tests.bench.building import BuildingFarm, Repository, open_building_farm
from tests.bench.figure import Figure, median

MARK = re.compile(r"\[output clipped, [^\]]*\]")  # the engine's own word, where it stopped
RATIO = 1.3
BEYOND = 1 << 40
LINE = re.compile(rb"^(\d{7}) x+$", re.MULTILINE)
DOCKERFILE = """FROM {base}
RUN awk 'BEGIN {{ s = sprintf("%91s", ""); gsub(/ /, "x", s); while (i++ < {lines}) printf "%07d %s\\n", i, s; }}'
"""


def measure(bench: Bench) -> Iterator[Figure]:
    """By the classic builder, which keeps everything, and by BuildKit, which clips."""
    lines = bench.size(200_000, 40_000)
    with open_building_farm(bench) as farm:
        dockerfile = DOCKERFILE.format(base=farm.base, lines=lines)
        repository = Repository(bench.new_directory("output") / "app", {"Dockerfile": dockerfile.encode()})
        bench.run(_through, farm, repository, "classic")  # the mirror is made, everything imported
        for builder, pairs in (("classic", bench.size(3, 1)), ("buildkit", bench.size(2, 1))):
            yield from _row(bench, farm, repository, builder, lines, pairs)


def _row(
    bench: Bench, farm: BuildingFarm, repository: Repository, builder: str, lines: int, pairs: int
) -> Iterator[Figure]:
    found, direct = [], []
    for number in range(pairs):
        for which in (number % 2, 1 - number % 2):
            if which:
                direct.append(_direct(farm, repository, builder == "classic"))
            else:
                found.append(bench.run(_through, farm, repository, builder))
    seconds, in_hand, kept = (median([each[key] for each in found]) for key in ("stored", "in_hand", "lines"))
    yield Figure(
        row="output",
        name=f"{lines} lines, {builder}: all stored and readable",
        value=seconds,
        unit="s",
        beside="s engine's API, output thrown away",
        beside_value=median(direct),
        target=f"under {RATIO} of it",
        reached=seconds / median(direct) < RATIO,
        note=f"{kept / seconds:,.0f} lines/s kept; the whole log fetched over HTTP after {in_hand:.1f} s",
        details={"blacktree": found, "direct_s": direct},
    )
    every = all(each["lines"] == lines and each["ordered"] for each in found)
    # What BuildKit clips is not in our hands, that it is told is: the notice names what was kept, byte for byte. A line
    # that was cut in two gets its newline from us.
    honest = all(each["ordered"] and (each["lines"] == lines or _told(each)) for each in found)
    yield Figure(
        row="output",
        name=f"{lines} lines, {builder}: lines kept, in order",
        value=kept,
        unit="lines",
        target="every line" if builder == "classic" else "all that the engine gives, its clip told",
        reached=every if builder == "classic" else honest,
        note="" if every else f"told: {'; '.join(found[0]['notices'])}",
    )


def _told(build: dict[str, Any]) -> bool:
    return bool(build["notices"]) and 0 <= build["bytes"] - build["clipped_bytes"] <= len(build["notices"])


def _direct(farm: BuildingFarm, repository: Repository, classic: bool) -> float:
    name, _, value = farm.label.partition("=")
    body = engine_api.context(repository.files)
    began = time.monotonic()
    engine_api.build(farm.socket, body, classic=classic, no_cache=True, labels=f'{{"{name}":"{value}"}}')
    return time.monotonic() - began


async def _through(farm: BuildingFarm, repository: Repository, builder: str) -> dict[str, Any]:
    """A build's end is on record after its last line: once the job has ended, all is stored."""
    async with farm.client() as client:
        await client.server_info()
        began = trio.current_time()
        job = await client.submit(farm.spec(repository, no_cache=True, builder=builder))
        # From behind its last event: nothing but the end is sent, and nothing is asked while the build runs.
        async with client.watch(job["id"], from_seq=BEYOND) as watch:
            async for _ in watch:
                pass
        job = watch.job
        stored = trio.current_time() - began
        if job["state"] != "succeeded":
            raise RuntimeError(f"the build ended {job['state']}: {job['error']}")
        text = await trio.to_thread.run_sync(_log, farm, job["id"])
        in_hand = trio.current_time() - began
        notices, size = await _clips(client, job["id"]) if builder == "buildkit" else ([], 0)
    numbers = [int(each) for each in LINE.findall(text)]
    return {
        "stored": stored,
        "in_hand": in_hand,
        "lines": len(numbers),
        "ordered": all(first < second for first, second in pairwise(numbers)),
        "notices": notices,
        "clipped_bytes": sum(int(found) for each in notices for found in re.findall(r"kept (\d+) bytes", each)),
        "bytes": size,
    }


async def _clips(client: Client, job_id: str) -> tuple[list[str], int]:
    """The notices of clipped output, and how many bytes the steps that were clipped have in the log."""
    notices: dict[str, str] = {}
    sizes: Counter[str] = Counter()
    async with client.watch(job_id) as watch:
        async for batch in watch:
            for event in batch.events:
                if event["type"] == "notice" and event["code"] == "output_clipped":
                    notices[event["step"]] = event["text"]
                elif event["type"] == "log":
                    sizes[event["step"]] += len(MARK.sub("", event["line"]).encode()) + 1
    return list(notices.values()), sum(sizes[step] for step in notices)


def _log(farm: BuildingFarm, job_id: str) -> bytes:
    token = (farm.farm.state / "token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{farm.farm.url}/api/v1/jobs/{job_id}/log", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        text: bytes = answer.read()
    return text
