"""Webhooks and kill -9: what was answered with 202 is built once, and its statuses arrive."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import trio

from blacktree.cipher import new_key
from blacktree.client import Client
from blacktree.client.sources import add_source
from tests.parts import forge as forges
from tests.parts.farm import SLOW, Farm, open_farm, script, until_state
from tests.parts.forge import SECRET, TOKEN, ForgeApi, commit_id, forge_api, push
from tests.parts.written import holders

URL = "https://git.example.org/team/app.git"


@pytest.fixture
def api() -> Iterator[ForgeApi]:
    with forge_api() as opened:
        yield opened
        assert opened.wrong == []


@pytest.fixture
def farm() -> Iterator[Farm]:
    with open_farm() as opened:
        opened.environ |= {
            "BLACKTREE_ORCHESTRATOR_SECRETS_KEY": new_key().text(),
            "BLACKTREE_DOOR_PUBLIC_URL": "https://farm.example.org",
        }
        yield opened


async def declare(farm: Farm, api: ForgeApi, client: Client, **more: Any) -> None:
    for kind, name, value in (("webhook", "hook", SECRET.decode()), ("forge", "git.example.org", TOKEN)):
        await client.call("secret.put", {"kind": kind, "name": name, "value": value})
    given = {"name": "app", "repository": URL, "webhook_secret": "hook", "forge_token": "git.example.org"}
    spec = {"build_args": {"SCRIPT": script({"step": "noop"})}}
    await add_source(client, given | {"forge_url": api.url, "spec": spec} | more)


async def send(farm: Farm, value: dict[str, Any], delivery: str = "") -> httpx.Response:
    """One delivery, over a connection of its own."""
    body = json.dumps(value).encode()
    headers = forges.headers("github", body, delivery=delivery)
    async with httpx.AsyncClient(timeout=40) as http:
        return await http.post(f"http://127.0.0.1:{farm.door}/api/v1/webhooks/github", headers=headers, content=body)


async def jobs(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.jobs(limit=500))["jobs"]
    return list(reversed(found))


async def until_told(api: ForgeApi, commit: str, *states: str) -> None:
    try:
        with trio.fail_after(SLOW):
            while api.states(commit) != list(states):
                await trio.sleep(0.02)
    except trio.TooSlowError:
        raise AssertionError(f"told {api.states(commit)}, not {states}") from None


async def until_first(api: ForgeApi, commit: str) -> None:
    """Until the forge knows of it; what a job has passed when it is told is not told any more."""
    with trio.fail_after(SLOW):
        while not api.states(commit):
            await trio.sleep(0.02)


async def test_killed_after_the_answer(farm: Farm, api: ForgeApi) -> None:
    farm.worker("w1")
    await farm.up(farm.orchestrator)
    async with farm.client() as client:
        await declare(farm, api, client, supersede=False)
        for number in range(1, 3):
            answer = await send(farm, push("github", URL, after=commit_id(number)), f"d-{number}")
            assert answer.status_code == 202, answer.text
            farm.orchestrator.kill()
            await farm.up(farm.orchestrator)
            again = await send(farm, push("github", URL, after=commit_id(number)), f"d-{number}")
            assert (again.status_code, again.json()["status"]) == (200, "known")
        for number in range(1, 3):
            with trio.fail_after(SLOW):
                while len(found := await jobs(client)) < number:
                    await trio.sleep(0.02)
        assert [job["spec"]["ref"] for job in found] == [commit_id(number) for number in range(1, 3)]
        for number in range(1, 3):
            await until_first(api, commit_id(number))
        await farm.up()
        for job in found:
            await until_state(client, job["id"], "succeeded")
            assert job["origin"]["source"] == "app"
        for number in range(1, 3):
            with trio.fail_after(SLOW):
                while api.states(commit_id(number))[-1:] != ["success"]:
                    await trio.sleep(0.02)
            assert api.states(commit_id(number))[0] == "pending"
        assert len(await jobs(client)) == 2


async def test_killed_in_a_burst(farm: Farm, api: ForgeApi) -> None:
    """The last commit is the one that is built, whatever was killed meanwhile."""
    farm.worker("w1")
    await farm.up()
    async with farm.client() as client:
        await declare(farm, api, client)
        for number in range(1, 21):
            value = push("github", URL, before=commit_id(number - 1), after=commit_id(number))
            answer = await send(farm, value)
            assert answer.status_code == 202, answer.text
            if number == 20:
                farm.orchestrator.kill()
                await farm.up(farm.orchestrator)
        with trio.fail_after(SLOW):
            while True:
                found = await jobs(client)
                if len(found) == 20 and all(job["state"] in ("canceled", "succeeded") for job in found):
                    break
                await trio.sleep(0.05)
        assert [job["spec"]["ref"] for job in found] == [commit_id(number) for number in range(1, 21)]
        assert found[-1]["state"] == "succeeded"
        # Whether it was heard of before it ran is chance: what a job has passed is not told any more.
        with trio.fail_after(SLOW):
            while api.states(commit_id(20))[-1:] != ["success"]:
                await trio.sleep(0.02)
        told = api.states(commit_id(20))
        assert told[-1] == "success", told
        # As queued, as running, and each once more if the kill came between the telling and its record.
        assert told[:-1] in ([], ["pending"], ["pending"] * 2, ["pending"] * 3), told


async def test_statuses_are_told_after_a_kill(farm: Farm, api: ForgeApi) -> None:
    farm.worker("w1")
    await farm.up(farm.orchestrator)
    api.script = [(503, {})] * 10_000
    async with farm.client() as client:
        await declare(farm, api, client)
        assert (await send(farm, push("github", URL))).status_code == 202
        with trio.fail_after(SLOW):
            while not (found := await jobs(client)):
                await trio.sleep(0.02)
        # The first word is on its way when the builds begin.
        with trio.fail_after(SLOW):
            while not api.asked:
                await trio.sleep(0.02)
        await farm.up()
        await until_state(client, found[0]["id"], "succeeded")
        farm.orchestrator.kill()
        api.script.clear()
        await farm.up(farm.orchestrator)
        await until_told(api, commit_id(1), "pending", "success")
        assert TOKEN not in farm.said()
        assert SECRET.decode() not in farm.said()
        assert holders(TOKEN.encode(), farm.state) == []
