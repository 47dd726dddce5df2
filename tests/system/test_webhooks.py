"""From a push at a real git host to an image on a real engine, and its status back at the forge."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from blacktree.cipher import new_key
from blacktree.client import Client
from blacktree.client.sources import add_source
from tests.parts import forge as forges
from tests.parts.build_farm import BuildFarm, nonce, open_build_farm, open_engine
from tests.parts.engine import BASE
from tests.parts.forge import SECRET, TOKEN, ForgeApi, forge_api, pull_request, push
from tests.parts.git_server import GitServer, commit_files, git, git_server, make_repository

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]


@dataclass
class World:
    farm: BuildFarm
    root: Path
    host: GitServer
    api: ForgeApi


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("hooks")
    root = home / "host" / "team"
    root.mkdir(parents=True)
    environ = {
        "BLACKTREE_ORCHESTRATOR_SECRETS_KEY": new_key().text(),
        "BLACKTREE_DOOR_PUBLIC_URL": "https://farm.example.org",
    }
    with open_engine() as socket, git_server(root.parent) as host, forge_api() as api:
        with open_build_farm(home, socket, **environ) as farm:
            yield World(farm, root, host, api)
    assert api.wrong == []


async def declared(world: World, client: Client, name: str, url: str, **more: Any) -> None:
    for kind, secret, value in (("webhook", "hook", SECRET.decode()), ("forge", "forge", TOKEN)):
        await client.call("secret.put", {"kind": kind, "name": secret, "value": value})
    given = {"name": name, "repository": url, "webhook_secret": "hook", "forge_token": "forge", "forge": "gitea"}
    spec = {"labels": {"blacktree-test.run": world.farm.mark}, "image": f"team/{name}", **more.pop("spec", {})}
    await add_source(client, given | {"forge_url": world.api.url, "spec": spec} | more)


async def send(world: World, value: dict[str, Any], kind: str = "push") -> None:
    body = json.dumps(value).encode()
    headers = forges.headers("gitea", body, event=kind)
    async with httpx.AsyncClient(timeout=40) as http:
        url = f"{world.farm.farm.url}/api/v1/webhooks/gitea"
        answer = await http.post(url, headers=headers, content=body)
    assert answer.status_code == 202, answer.text
    assert answer.json()["status"] == "accepted", answer.text


async def job_of(client: Client, commit: str) -> str:
    with trio.fail_after(60):
        while True:
            for job in (await client.jobs(limit=100))["jobs"]:
                if job["spec"]["ref"] == commit:
                    return str(job["id"])
            await trio.sleep(0.05)


async def told(world: World, commit: str, last: str) -> list[str]:
    with trio.fail_after(60):
        while world.api.states(commit)[-1:] != [last]:
            await trio.sleep(0.05)
    return world.api.states(commit)


@asynccontextmanager
async def held(client: Client) -> AsyncIterator[None]:
    """No build begins: what a job has passed when the forge is told of it is not told any more."""
    (worker,) = await client.workers()
    await client.drain(worker["id"])
    yield
    await client.drain(worker["id"], undo=True)


async def test_from_a_push_to_an_image_and_its_status(world: World) -> None:
    name = f"app-{nonce()}"
    repository = make_repository(world.root / name, {"Dockerfile": f"FROM {BASE}\nRUN echo built-here\n"})
    url = f"{world.host.url}/team/{name}"
    async with world.farm.client() as client:
        await declared(world, client, name, url, spec={"tags": ["{branch}", "{short}"]})
        first = git(repository, "rev-parse", "HEAD")
        async with held(client):
            await send(world, push("gitea", f"{url}.git", after=first, before=forges.ZEROS))
            await told(world, first, "pending")
        ended = await world.farm.follow(await job_of(client, first), client)
        assert ended.state == "succeeded", ended.job
        assert ended.job["commit"] == first
        assert world.farm.image(f"team/{name}:main")["Id"] == ended.job["image"]["id"]
        states = await told(world, first, "success")
        assert states[0] == "pending"
        taken = next(each for each in world.api.taken if each["commit"] == first)
        assert taken["project"] == f"team/{name}"
        assert taken["target_url"].endswith(f"/#/job/{ended.job['id']}")
        broken = commit_files(repository, {"Dockerfile": f"FROM {BASE}\nRUN exit 3\n"})
        async with held(client):
            await send(world, push("gitea", f"{url}.git", after=broken, before=first))
            await told(world, broken, "pending")
        ended = await world.farm.follow(await job_of(client, broken), client)
        assert ended.state == "failed"
        assert (await told(world, broken, "failure"))[0] == "pending"


async def test_a_pull_request_from_a_fork_is_built_without_anything(world: World) -> None:
    """Its commit is in no branch of the repository: only `refs/pull/7/head` leads to it."""
    name = f"app-{nonce()}"
    lines = f"FROM {BASE}\nRUN --mount=type=secret,id=npm test ! -e /run/secrets/npm && echo no-secret\n"
    repository = make_repository(world.root / name, {"Dockerfile": lines})
    git(repository, "checkout", "-q", "-b", "change")
    head = commit_files(repository, {"new": "file\n"})
    git(repository, "update-ref", "refs/pull/7/head", head)
    git(repository, "checkout", "-q", "main")
    git(repository, "branch", "-q", "-D", "change")
    url = f"{world.host.url}/team/{name}"
    async with world.farm.client() as client:
        await client.call("secret.put", {"kind": "build", "name": "npm", "value": "a-secret-of-the-build"})
        await declared(world, client, name, url, pull_requests=True, secrets=["npm"], spec={"tags": ["latest"]})
        await send(world, pull_request("gitea", f"{url}.git", head=head, fork=True), "pull_request")
        ended = await world.farm.follow(await job_of(client, head), client)
        assert ended.state == "succeeded", (ended.job, ended.text)
        assert "no-secret" in ended.text
        assert ended.job["spec"]["tags"] == [f"fork-7-{head[:12]}"]
        assert ended.job["origin"]["trusted"] is False
        await told(world, head, "success")
        assert {each["context"] for each in world.api.taken if each["commit"] == head} == {
            f"blacktree/{name}/pull-request"
        }
