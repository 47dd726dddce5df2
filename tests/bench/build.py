"""Wall time of a build through Blacktree, cold and from cache, beside the engine's API with the same context."""

import time
from collections.abc import Iterator

import trio

from tests.bench import engine_api
from tests.bench.bench import Bench
from tests.bench.building import BuildingFarm, Repository, followed, open_building_farm
from tests.bench.figure import Figure, median

COLD_RATIO, CACHED_MS = 1.03, 150.0
SMALL = """FROM {base}
ENV LEVEL=1
WORKDIR /app
COPY hello.sh changed ./
RUN echo one >one
RUN echo two >two
RUN cat one two >three
CMD ["/bin/sh", "/app/hello.sh"]
"""
# Some seconds of work, as builds are.
ORDINARY = SMALL + "RUN dd if=/dev/zero bs=1M count={count} 2>/dev/null | sha256sum >sum && sleep {rest}\n"


def measure(bench: Bench) -> Iterator[Figure]:
    """Interleaved pairs; of each pair, now the one goes first, now the other."""
    with open_building_farm(bench) as farm:
        pairs = bench.size(7, 1)
        repository = _repository(bench, farm, SMALL.format(base=farm.base))
        _pair(bench, farm, repository, 0, no_cache=True)  # the mirror is made, everything imported
        yield _cold(bench, "8 steps, next to no work", farm, repository, pairs, None)
        cached = [_pair(bench, farm, repository, number, no_cache=False) for number in range(bench.size(15, 2))]
        through, direct = (median(times) * 1000 for times in zip(*cached, strict=True))
        yield Figure(
            row="build",
            name="build from cache, through Blacktree",
            value=through,
            unit="ms",
            beside="ms engine's API",
            beside_value=direct,
            target=f"at most {CACHED_MS:.0f} ms more",
            reached=through - direct <= CACHED_MS,
            note=f"{through - direct:.0f} ms more",
            details={"pairs_s": cached},
        )
        work = ORDINARY.format(base=farm.base, count=bench.size(400, 20), rest=bench.size(3, 1))
        ordinary = _repository(bench, farm, work)
        _pair(bench, farm, ordinary, 0, no_cache=False)
        yield _cold(bench, "some seconds of work", farm, ordinary, bench.size(5, 1), COLD_RATIO)


def _cold(
    bench: Bench, what: str, farm: BuildingFarm, repository: Repository, pairs: int, limit: float | None
) -> Figure:
    found = []
    for number in range(pairs):
        repository.commit({"changed": f"{number} {time.time()}\n".encode()})
        found.append(_pair(bench, farm, repository, number, no_cache=True))
    through, direct = (median(times) for times in zip(*found, strict=True))
    return Figure(
        row="build",
        name=f"cold build of a new commit ({what}), through Blacktree",
        value=through,
        unit="s",
        beside="s engine's API",
        beside_value=direct,
        target=f"{limit} of it" if limit else "",
        reached=through / direct <= limit if limit else None,
        note=f"{(through - direct) * 1000:.0f} ms more",
        details={"pairs_s": found},
    )


def _repository(bench: Bench, farm: BuildingFarm, dockerfile: str) -> Repository:
    files = {"Dockerfile": dockerfile.encode(), "hello.sh": b"echo hello\n", "changed": b"0\n"}
    return Repository(bench.new_directory("repository") / "app", files)


def _pair(
    bench: Bench, farm: BuildingFarm, repository: Repository, number: int, *, no_cache: bool
) -> tuple[float, float]:
    """Seconds through Blacktree and by the engine's API."""
    name, _, value = farm.label.partition("=")
    body = engine_api.context(repository.files)
    labels = f'{{"{name}":"{value}"}}'
    times = [0.0, 0.0]
    for which in (number % 2, 1 - number % 2):
        if which:
            began = time.monotonic()
            engine_api.build(farm.socket, body, no_cache=no_cache, labels=labels, t="blacktree-bench/direct")
            times[1] = time.monotonic() - began
        else:
            times[0] = bench.run(_through, farm, repository, no_cache)
    return times[0], times[1]


async def _through(farm: BuildingFarm, repository: Repository, no_cache: bool) -> float:
    """From before the submission to the job's end as the follower hears it."""
    async with farm.client() as client:
        await client.server_info()
        began = trio.current_time()
        await followed(client, farm.spec(repository, no_cache=no_cache))
        return trio.current_time() - began
