"""Wall time of a push through Blacktree, beside the engine's own push of an image of the same size in the same run.

Through Blacktree is the step `push` as the job has it: the layers under a tag of the attempt's own, the manifest read
back, the grant, one request for the tag. Directly is one `POST /images/NAME/push`. Both follow at once on the build of
their image, the one by the farm, the other by the engine's API, so that engine and disk have the same behind them.
"""

import json
import os
import secrets
import time
from collections.abc import Iterator
from typing import Any

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
        data = os.urandom(size * MEBIBYTE)
        image = f"{host}/bench/{('through', 'direct')[which]}{secrets.token_hex(4)}"
        times[which] = _direct(farm, data, image) if which else bench.run(_through, farm, repository, data, image)
    return times[0], times[1]


def _direct(farm: BuildingFarm, data: bytes, image: str) -> float:
    name, _, value = farm.label.partition("=")
    body = engine_api.context({"Dockerfile": DOCKERFILE, "data": data})
    engine_api.build(farm.socket, body, no_cache=True, t=f"{image}:{TAG}", labels=json.dumps({name: value}))
    began = time.monotonic()
    engine_api.push(farm.socket, image, TAG)
    return time.monotonic() - began


async def _through(farm: BuildingFarm, repository: Repository, data: bytes, image: str) -> float:
    """What the step took, by the job's record: from its start to its end, grant and every tag included."""
    repository.commit({"data": data})
    async with farm.client() as client:
        spec: dict[str, Any] = farm.spec(repository, image=image, tags=[TAG], push=True, no_cache=True)
        job = await followed(client, spec)
    [step] = [step for step in job["steps"] if step["step"] == "push"]
    return float(step["seconds"])
