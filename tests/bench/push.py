"""Wall time of a push through Blacktree, beside the engine's own push of an image of the same size in the same run.

Through Blacktree is the step `push` as the job has it: layers under a tag of the attempt's own, the manifest read
back, the grant, one request for the tag. Directly is one `POST /images/NAME/push`. Both follow at once on a build by
the farm that found everything in the cache, so that neither has the writing of its layers beside it.
"""

import os
import secrets
import time
from collections.abc import Iterator
from typing import Any

import trio

from tests.bench import engine_api
from tests.bench.bench import Bench, NotHere
from tests.bench.building import BuildingFarm, Repository, followed, open_building_farm
from tests.bench.figure import Figure, median
from tests.parts.registry import can_start_registries, registry

RATIO = 1.05
# MiB, and how many pairs. What a push costs beside its layers is the same for each: the smaller, the more it weighs.
SIZES = ((64, 7), (16, 13), (4, 13))
DOCKERFILE = b"FROM scratch\nCOPY data /\n"
TAG = "latest"
MEBIBYTE = 1 << 20


def measure(bench: Bench) -> Iterator[Figure]:
    """Interleaved pairs; of each pair, now the one goes first, now the other. Each image has bytes of its own."""
    if not can_start_registries():
        raise NotHere("docker-registry is not installed")
    with registry() as real, open_building_farm(bench, steps="sync,build,tag,push") as farm:
        repository = Repository(bench.new_directory("repository") / "app", {"Dockerfile": DOCKERFILE, "data": b"0"})
        _pair(bench, farm, repository, real.host, 0, 1)  # the mirror is made, the registry has begun
        for size, pairs in ((1, 1),) if bench.quick else SIZES:
            found = [_pair(bench, farm, repository, real.host, number, size) for number in range(pairs)]
            # The best of each: whatever else takes the processors' time, other guests of the machine too, only adds.
            through, direct = (min(times) for times in zip(*found, strict=True))
            medians = [median(times) for times in zip(*found, strict=True)]
            yield Figure(
                row="push",
                name=f"push of {size} MiB that the registry does not have, through Blacktree",
                value=through,
                unit="s",
                beside="s engine's API",
                beside_value=direct,
                target=f"at most {RATIO} of it",
                reached=through / direct <= RATIO,
                note=f"{(through - direct) * 1000:+.0f} ms, best of {pairs}; medians: {medians[0] / medians[1]:.2f}",
                details={"pairs_s": found},
            )


def _pair(
    bench: Bench, farm: BuildingFarm, repository: Repository, host: str, number: int, size: int
) -> tuple[float, float]:
    """Seconds through Blacktree and by the engine's API, each of an image that the farm has just built."""
    times = [0.0, 0.0]
    for which in (number % 2, 1 - number % 2):
        repository.commit({"data": os.urandom(size * MEBIBYTE)})
        image = f"{host}/bench/{('through', 'direct')[which]}{secrets.token_hex(4)}"
        bench.run(_built, farm, repository, image)
        os.sync()
        times[which] = bench.run((_through, _direct)[which], farm, repository, image)
    return times[0], times[1]


async def _built(farm: BuildingFarm, repository: Repository, image: str, *, push: bool = False) -> dict[str, Any]:
    async with farm.client() as client:
        return await followed(client, farm.spec(repository, image=image, tags=[TAG], push=push))


async def _direct(farm: BuildingFarm, repository: Repository, image: str) -> float:
    await _built(farm, repository, image)
    began = time.monotonic()
    await trio.to_thread.run_sync(engine_api.push, farm.socket, image, TAG)
    return time.monotonic() - began


async def _through(farm: BuildingFarm, repository: Repository, image: str) -> float:
    """What the step took, by the job's record: from its start to its end, grant and every tag included."""
    job = await _built(farm, repository, image, push=True)
    [step] = [step for step in job["steps"] if step["step"] == "push"]
    return float(step["seconds"])
