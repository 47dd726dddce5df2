"""Sweep and prune on a real engine: ours and no more; two owners on one engine."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from blacktree.providers import open_provider
from blacktree.providers.base import Budget, Provider, ProviderSettings
from blacktree.providers.docker.address import Address
from blacktree.providers.docker.engine import Engine
from blacktree.providers.docker.housekeeping import layers_of, union
from blacktree.providers.docker.labels import JOB, OWNER, job_of, mark_for
from blacktree.providers.docker.ledger import Ledger
from blacktree.providers.docker.provider import DockerProvider
from blacktree.providers.docker.stream import Connector, EngineRefused
from tests.contracts import containers as suites
from tests.contracts.provider import Recorder
from tests.parts.registry import can_start_registries, registry
from tests.providers.docker.requests import nonce, request


@pytest.fixture
async def engine(engine_socket: str, base: str) -> Engine:
    return Engine(Connector(Address(path=engine_socket)))


@pytest.fixture
async def owners(engine_socket: str, base: str) -> AsyncIterator[tuple[Provider, Provider, str]]:
    """Two providers on one engine, and the first one's name."""
    one, two = nonce(), nonce()
    async with open_provider("docker", ProviderSettings(owner=one, engine=engine_socket)) as first:
        async with open_provider("docker", ProviderSettings(owner=two, engine=engine_socket)) as second:
            yield first, second, one
            await first.sweep([])
            await first.prune(Budget(image_bytes=0, cache_bytes=1 << 50))
            await second.sweep([])
            await second.prune(Budget(image_bytes=0, cache_bytes=1 << 50))


async def exists(engine: Engine, path: str) -> bool:
    try:
        await engine.call("GET", path)
    except EngineRefused:
        return False
    return True


@pytest.mark.docker
async def test_a_sweep_takes_what_is_ours_and_of_no_living_job(
    owners: tuple[Provider, Provider, str], engine: Engine, base: str
) -> None:
    first, second, owner = owners
    made: dict[str, str] = {}
    for job in ("alive", "dead"):
        labels = {OWNER: owner, JOB: job}
        container = await engine.call("POST", "/containers/create", body={"Image": base, "Labels": labels})
        made[f"{job} container"] = f"/containers/{container['Id']}/json"
        mark = f"{mark_for(owner, job, 1)}:127.0.0.1"
        container = await engine.call(
            "POST", "/containers/create", body={"Image": base, "HostConfig": {"ExtraHosts": [mark]}}
        )
        made[f"{job} marked"] = f"/containers/{container['Id']}/json"
        volume = await engine.call("POST", "/volumes/create", body={"Name": f"{owner}{job}", "Labels": labels})
        made[f"{job} volume"] = f"/volumes/{volume['Name']}"
        image = await first.build(request(f"RUN echo {nonce()}", job_id=job), Recorder())
        made[f"{job} image"] = f"/images/{image.id}/json"
    assert len(await first.remaining("dead")) == 3
    assert await second.sweep([]) == []
    removed = await first.sweep(["alive"])
    assert len(removed) == 4, removed
    for name, path in made.items():
        assert await exists(engine, path) is name.startswith("alive"), name
    assert len(await first.sweep([])) == 4


@pytest.mark.docker
async def test_a_sweep_of_one_owner_leaves_the_build_of_another(owners: tuple[Provider, Provider, str]) -> None:
    first, second, _ = owners
    for builder in ("buildkit", "classic"):
        sink = Recorder()
        with trio.fail_after(40):
            async with trio.open_nursery() as nursery:
                line = f"RUN echo under way {nonce()}; sleep 2; echo finished"
                nursery.start_soon(first.build, request(line, builder=builder), sink)
                await sink.until(b"under way")
                assert await second.sweep([]) == []
                await second.prune(Budget(image_bytes=0, cache_bytes=1 << 50))
        assert b"finished" in sink.text


@pytest.mark.docker
async def test_prune_takes_the_oldest_first_and_none_in_use(
    owners: tuple[Provider, Provider, str], engine: Engine
) -> None:
    first, second, owner = owners
    images = []
    for number in range(3):
        line = f"RUN echo {nonce()}; dd if=/dev/urandom of=/data bs=1M count=2 2>/dev/null"
        image = await first.build(request(line), Recorder())
        await first.tag(image.id, [f"{owner}/image:{number}", f"{owner}/image:also{number}"])
        images.append(image.id)
    others = await second.build(request(f"RUN echo {nonce()}"), Recorder())
    await second.tag(others.id, [f"{owner}/others:1"])
    container = await engine.call("POST", "/containers/create", body={"Image": images[0]})
    try:
        freed = await first.prune(Budget(image_bytes=7 << 20, cache_bytes=1 << 50))
        assert freed >= 2 << 20
        there = [await exists(engine, f"/images/{image}/json") for image in images]
        assert there == [True, False, True], "the oldest is in use, the youngest within the budget"
        assert await exists(engine, f"/images/{others.id}/json")
    finally:
        await engine.call("DELETE", f"/containers/{container['Id']}", {"force": "1"})


@pytest.mark.docker
async def test_an_image_that_waits_for_its_tag_is_not_pruned(
    owners: tuple[Provider, Provider, str], engine: Engine
) -> None:
    first, _, _ = owners
    image = await first.build(request(f"RUN echo {nonce()}"), Recorder())
    await first.prune(Budget(image_bytes=0, cache_bytes=1 << 50))
    assert await exists(engine, f"/images/{image.id}/json")


def test_marks_name_their_owner_and_job() -> None:
    mark = mark_for("worker one/farm", "job_1-x", 3)
    assert job_of(mark, "worker one/farm") == "job_1-x"
    assert job_of(mark, "worker two") is None
    assert job_of("localhost", "worker one/farm") is None


def test_shared_layers_count_once() -> None:
    base = [{"Created": 1, "CreatedBy": "import", "Size": 100}]
    one = layers_of([{"Created": 2, "CreatedBy": "a", "Size": 10}, {"Created": 2, "CreatedBy": "l", "Size": 0}, *base])
    two = layers_of([{"Created": 3, "CreatedBy": "b", "Size": 20}, *base])
    assert union({"one": one, "two": two}) == 130


@pytest.mark.docker
async def test_what_somebody_built_from_ours_is_not_ours_to_prune(
    owners: tuple[Provider, Provider, str], engine: Engine, engine_socket: str, base: str
) -> None:
    """A child image inherits our labels; only what this worker built itself may go."""
    first, _, owner = owners
    ours, child = f"blacktree-test/ours:{owner}", f"blacktree-test/child:{owner}"
    built = await first.build(request(f"RUN echo {nonce()}"), Recorder())
    await first.tag(built.id, [ours])
    try:
        await trio.run_process(
            ["docker", "-H", f"unix://{engine_socket}", "build", "-q", "-t", child, "-"],
            stdin=f"FROM {ours}\nLABEL mine=yes\n".encode(),
            capture_stdout=True,
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
        )
        await first.prune(Budget(image_bytes=0, cache_bytes=1 << 50))
        assert await exists(engine, f"/images/{child}/json")
    finally:
        await trio.run_process(["docker", "-H", f"unix://{engine_socket}", "rmi", "-f", child], capture_stdout=True)


@pytest.mark.docker
@pytest.mark.registry
@pytest.mark.skipif(not can_start_registries(), reason="needs docker-registry")
async def test_what_was_pulled_for_a_replica_goes_when_it_is_too_much(
    owners: tuple[Provider, Provider, str], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = owners
    assert isinstance(second, DockerProvider)
    nothing = Budget(image_bytes=0, cache_bytes=1 << 50)
    with registry({}) as real:
        name = f"{real.host}/team/app:1"
        built = await first.build(request(f"RUN echo {nonce()} > /it"), Recorder())
        await first.tag(built.id, [name])
        digest = await first.push(name, None, Recorder())
        pulled = f"{real.host}/team/app@{digest}"
        # It was here before: it is not the second one's, though that has a container of it.
        await second.containers.pull(pulled, None)
        monkeypatch.setattr("blacktree.providers.docker.provider._FRESH_SECONDS", 0.0)
        await second.prune(nothing)
        assert await exists(engine, f"/images/{built.id}/json")
        await engine.call("DELETE", f"/images/{built.id}", {"force": "1"})
        await second.containers.pull(pulled, None)
        monkeypatch.setattr("blacktree.providers.docker.provider._FRESH_SECONDS", 900.0)
        await second.prune(nothing)
        assert await exists(engine, f"/images/{built.id}/json"), "a container is about to be made of it"
        monkeypatch.setattr("blacktree.providers.docker.provider._FRESH_SECONDS", 0.0)
        made = await second.containers.create(suites.a_request(pulled, ["/bin/true"]))
        await second.prune(nothing)
        assert await exists(engine, f"/images/{built.id}/json"), "it is in use"
        await second.containers.remove(made)
        await second.prune(nothing)
        assert not await exists(engine, f"/images/{built.id}/json")


async def test_a_full_disk_fails_no_build_that_is_done(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "gone"))
    await ledger.add("sha256:1")
    assert list(await ledger.ids()) == ["sha256:1"]
