"""Pushes of a whole farm: what is killed, frozen, overtaken or canceled moves no name that is not its own to move."""

import json
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import trio

from blacktree.client import Client
from tests.parts.engine import engine
from tests.parts.farm import SHORT_LEASE, SLOW, Farm, open_farm, submit, until_state
from tests.parts.git_server import make_repository
from tests.parts.odd_registry import OddRegistry, odd_registry
from tests.parts.registry import can_start_registries, registry
from tests.parts.truth import ended_once, every_event
from tests.parts.written import holders

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(150)]


@pytest.fixture(scope="module")
def socket() -> Iterator[str]:
    with engine() as path:
        yield path


@pytest.fixture
def odd(socket: str) -> Iterator[OddRegistry]:
    with odd_registry() as made:
        yield made
    forget(socket, made.host)


def forget(socket: str, host: str) -> None:
    """Remove what the engine keeps under this registry's name."""
    docker = ["docker", "--host", f"unix://{socket}"]
    listed = [*docker, "images", "--format", "{{.Repository}}:{{.Tag}}", f"{host}/team/app"]
    found = subprocess.run(listed, capture_output=True, text=True, check=False)
    if names := [name for name in found.stdout.split() if not name.endswith("<none>")]:
        subprocess.run([*docker, "rmi", *names], capture_output=True, check=False)


@pytest.fixture
def farm(socket: str) -> Iterator[Farm]:
    with open_farm() as farm:
        pusher(farm, "one", socket)
        yield farm


@pytest.fixture
def hasty(socket: str) -> Iterator[Farm]:
    """Another one, whose leases run out soon."""
    with open_farm(orchestrator=SHORT_LEASE) as farm:
        pusher(farm, "one", socket)
        yield farm


def pusher(farm: Farm, name: str, socket: str, **settings: Any) -> None:
    """A worker that builds and pushes."""
    farm.worker(name, provider="docker", steps="sync,build,tag,push", engine=socket, **{"slots": 1} | settings)


def a_spec(farm: Farm, host: str, *, size: int = 64, **more: Any) -> dict[str, Any]:
    """A repository of its own with one layer that no registry has."""
    files: dict[str, str | bytes] = {"Dockerfile": "FROM scratch\nCOPY data /\n", "data": secrets.token_bytes(size)}
    path = make_repository(farm.home / f"r{secrets.token_hex(4)}", files)
    return {"repository": str(path), "image": f"{host}/team/app", "tags": ["1", "latest"], "push": True} | more


async def until_asked(odd: OddRegistry, pattern: str) -> None:
    with trio.fail_after(SLOW):
        while not odd.count(pattern):
            await trio.sleep(0.02)


async def pushed(client: Client, odd: OddRegistry, job_id: str, *, attempt: int) -> dict[str, Any]:
    """Succeeded in this attempt; every tag is its own, and nothing else has a tag."""
    job = await until_state(client, job_id, "succeeded", "failed", "lost")
    assert (job["state"], job["attempt"]) == ("succeeded", attempt), job
    await ended_once(client, job_id)
    digest = job["image"]["digest"]
    assert odd.tags == {"team/app:1": digest, "team/app:latest": digest}
    assert job["image"]["references"] == [f"{odd.host}/team/app:1", f"{odd.host}/team/app:latest"]
    return job


async def test_a_worker_killed_in_mid_push(farm: Farm, odd: OddRegistry) -> None:
    """Its successor's manifest is the one that is there, and no tag of an attempt stays."""
    odd.rule("^PUT .*/manifests/1$", "pretend", times=1)
    await farm.up()
    async with farm.client() as client:
        job_id = await submit(client, a_spec(farm, odd.host), "killed")
        # Layers and manifest are there under the attempt's own tag: it dies with the grant in its hand.
        await until_asked(odd, "^PUT .*/manifests/1$")
        farm.workers["one"].kill()
        await farm.up()
        assert (await pushed(client, odd, job_id, attempt=2))["tries"] == 1


async def test_a_worker_killed_while_layers_go(farm: Farm, odd: OddRegistry) -> None:
    odd.rule("^PATCH", "hang", times=1)
    await farm.up()
    async with farm.client() as client:
        job_id = await submit(client, a_spec(farm, odd.host, size=8 << 20), "layers")
        await until_asked(odd, "^PATCH")
        farm.workers["one"].kill()
        await farm.up()
        await pushed(client, odd, job_id, attempt=2)


async def test_a_worker_that_slept_moves_nothing(hasty: Farm, odd: OddRegistry, socket: str) -> None:
    """Frozen under the grant, its guard too. When it wakes its successor has published: it moves no further name."""
    held = odd.rule("^PUT .*/manifests/1$", "pretend", status=201, times=1)
    await hasty.up()
    one = hasty.workers["one"]
    async with hasty.client() as client:
        job_id = await submit(client, a_spec(hasty, odd.host), "slept")
        await until_asked(odd, "^PUT .*/manifests/1$")
        [guard] = one.children()
        for pid in (guard, one.pid):
            os.kill(pid, signal.SIGSTOP)
        pusher(hasty, "two", socket)
        await hasty.up(hasty.workers["two"])
        job = await pushed(client, odd, job_id, attempt=2)
        events = await every_event(client, job_id)
        puts = list(odd.puts)
        # The answer to its first name lies there when it wakes: the second one would be next.
        held.released.set()
        one.send(signal.SIGCONT)
        await hasty.until_workers(client, lambda found: "one" in found)
        os.kill(guard, signal.SIGCONT)
        assert odd.puts == puts
        assert job["worker_id"] == "two"
        assert await every_event(client, job_id) == events


async def test_an_older_job_does_not_overtake_a_newer_one(farm: Farm, odd: OddRegistry, socket: str) -> None:
    pusher(farm, "two", socket)
    held = odd.rule("^PATCH", "hold", times=1)
    await farm.up()
    async with farm.client() as client:
        older = await submit(client, a_spec(farm, odd.host, tags=["old", "latest"]), "older")
        await until_asked(odd, "^PATCH")
        newer = await submit(client, a_spec(farm, odd.host, tags=["new", "latest"]), "newer")
        new = await until_state(client, newer, "succeeded", "failed")
        held.released.set()
        old = await until_state(client, older, "succeeded", "failed")
        name = f"{odd.host}/team/app"
        assert (old["image"]["references"], old["image"]["withheld"]) == ([f"{name}:old"], [f"{name}:latest"])
        assert (new["image"]["references"], new["image"]["withheld"]) == ([f"{name}:new", f"{name}:latest"], [])
        assert odd.tags["team/app:latest"] == new["image"]["digest"]
        assert odd.tags["team/app:old"] == old["image"]["digest"]
        events = await every_event(client, older)
        assert [each["code"] for each in events if each["type"] == "notice"] == ["commit", "tag_withheld"]
        # Repeated, it is as old as it was.
        again = await client.retry(older)
        repeated = await until_state(client, again["id"], "succeeded", "failed")
        assert repeated["image"]["withheld"] == [f"{name}:latest"]


async def test_cancel_in_mid_push(farm: Farm, odd: OddRegistry) -> None:
    odd.rule("^PATCH", "hang")
    await farm.up()
    async with farm.client() as client:
        job_id = await submit(client, a_spec(farm, odd.host, size=8 << 20), "canceled")
        await until_asked(odd, "^PATCH")
        with trio.fail_after(SLOW):
            assert (await client.cancel(job_id))["state"] == "canceled"
        await ended_once(client, job_id)
        assert odd.tags == {}
        assert odd.puts == []


async def test_a_registry_that_is_away_is_tried_again_by_another_attempt(farm: Farm, odd: OddRegistry) -> None:
    odd.rule("^PUT .*/manifests/1$", status=429, headers={"Retry-After": "600"}, times=1)
    await farm.up()
    async with farm.client() as client:
        job_id = await submit(client, a_spec(farm, odd.host), "again")
        job = await pushed(client, odd, job_id, attempt=2)
        assert job["tries"] == 1
        assert job["attempts"][0]["error"]["code"] == "registry_limited"


@pytest.mark.registry
@pytest.mark.skipif(not can_start_registries(), reason="needs docker-registry")
async def test_logins_are_told_to_nobody_but_the_registry(farm: Farm, socket: str) -> None:
    """By the worker's Docker configuration; the password is in no log, no event, no job and no file of the farm."""
    import base64

    password = f"pass/{secrets.token_hex(8)}"
    docker = farm.home / "docker"
    docker.mkdir()
    with registry({"robot": password}) as real:
        auth = base64.b64encode(f"robot:{password}".encode()).decode()
        farm.workers["one"].environ |= {
            "DOCKER_CONFIG": str(docker),
            "BLACKTREE_WORKER_PLATFORMS": "linux/amd64,linux/arm64",
        }
        await farm.up()
        async with farm.client() as client:
            refused = await submit(client, a_spec(farm, real.host), "refused")
            job = await until_state(client, refused, "succeeded", "failed")
            assert (job["state"], job["error"]["code"], job["attempt"]) == ("failed", "registry_unauthorized", 1)
            (docker / "config.json").write_text(json.dumps({"auths": {real.host: {"auth": auth}}}))
            platforms = ["linux/amd64", "linux/arm64"]
            job_id = await submit(client, a_spec(farm, real.host, platforms=platforms), "let in")
            job = await until_state(client, job_id, "succeeded", "failed")
            assert job["state"] == "succeeded", job
            told = json.dumps([job, await every_event(client, job_id)])
            assert job["image"]["digest"].startswith("sha256:")
    forget(socket, real.host)
    assert password not in told
    assert auth not in told
    (docker / "config.json").unlink()
    for word in (password, auth):
        assert holders(word.encode(), farm.home) == []


async def part_ids(client: Client, job_id: str) -> list[str]:
    """The jobs that build its platforms, once there are any."""
    with trio.fail_after(SLOW):
        while not (parts := (await client.job(job_id))["parts"]):
            await trio.sleep(0.05)
    return [part["job_id"] for part in parts]


@pytest.mark.registry
@pytest.mark.skipif(not can_start_registries(), reason="needs docker-registry")
async def test_two_workers_build_one_name(farm: Farm, socket: str) -> None:
    """Each its platform. The orchestrator dies right after the split, then the one worker, and the orchestrator once
    more when the other one's part is there."""
    farm.workers.clear()
    for name in ("amd64", "arm64"):
        pusher(farm, name, socket, platforms=f"linux/{name}")
    platforms = ["linux/amd64", "linux/arm64"]
    with registry() as real:
        await farm.up()
        async with farm.client() as client:
            farm.arm("after-commit:running")
            job_id = await submit(client, a_spec(farm, real.host, platforms=platforms), "both")
            assert await farm.orchestrator.ended() == -signal.SIGKILL
            await farm.up(farm.orchestrator)
            first, second = await part_ids(client, job_id)
            farm.workers["arm64"].kill()
            assert (await until_state(client, first, "succeeded", "failed"))["worker_id"] == "amd64"
            farm.orchestrator.kill()
            await farm.up()
            job = await until_state(client, job_id, "succeeded", "failed", "lost")
            assert job["state"] == "succeeded", job
            await ended_once(client, job_id)
            parts = [await client.job(each) for each in (first, second)]
        assert [(part["worker_id"], part["part_of"]) for part in parts] == [("amd64", job_id), ("arm64", job_id)]
        assert {part["commit"] for part in parts} == {job["commit"]}
        assert job["image"]["references"] == [f"{real.host}/team/app:1", f"{real.host}/team/app:latest"]
        for tag in ("1", "latest"):
            digest, listed = manifest(real.host, tag)
            assert digest == job["image"]["digest"]
            found = {f"{each['platform']['os']}/{each['platform']['architecture']}" for each in listed["manifests"]}
            assert found == set(platforms)
            assert [each["digest"] for each in listed["manifests"]] == [part["image"]["digest"] for part in parts]
    forget(socket, real.host)


def manifest(host: str, reference: str) -> tuple[str, dict[str, Any]]:
    """What the registry has under a tag, and its digest."""
    kinds = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"
    answer = httpx.get(f"http://{host}/v2/team/app/manifests/{reference}", headers={"Accept": kinds}, timeout=40)
    answer.raise_for_status()
    return answer.headers["Docker-Content-Digest"], answer.json()
