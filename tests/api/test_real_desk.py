"""The door before the real desk: store, journal, broker and all, without a worker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from blacktree.api.door import Door
from blacktree.cipher import Key
from blacktree.client import Client
from blacktree.config import Config, DoorConfig
from blacktree.errors import NotAllowed
from blacktree.keyfile import KeyPlace
from blacktree.orchestrator.control import Control
from blacktree.orchestrator.daemon import serve
from tests.api.little import SPEC, TOKEN, House
from tests.api.talk import ask, talking

JOIN_TOKEN = "a-join-token-of-some-length"


class _Opened(House):
    """A house whose door the daemon opens."""

    def __init__(self, config: DoorConfig) -> None:
        self.doors: list[Door] = []
        self.config = config
        self.grpc = ""

    def open(self, control: Control) -> list[Door]:
        self.doors.append(Door(control, self.config, listen="127.0.0.1:0", token=TOKEN))
        return self.doors

    def look(self) -> None:
        self.door = self.doors[0]
        self.address = self.door.addresses[0]
        self.port = int(self.address.rpartition(":")[2])


@asynccontextmanager
async def real_house(directory: Path, *keys: Key, seconds: float = 100, **door: Any) -> AsyncIterator[_Opened]:
    """`keys`: those of its secrets; `door`: fields of `DoorConfig`."""
    (directory / "join").write_text(f"{JOIN_TOKEN}\n")
    (directory / "join").chmod(0o600)
    config = Config()
    orchestrator = msgspec.structs.replace(
        config.orchestrator,
        state_directory=str(directory / "state"),
        grpc_listen="127.0.0.1:0",
        join_token_file=str(directory / "join"),
        minimum_free_disk_bytes=0,
    )
    config = msgspec.structs.replace(config, orchestrator=orchestrator, door=DoorConfig(**door))
    house = _Opened(config.door)
    place = KeyPlace(what="a test", fixed=keys)
    stop = trio.Event()
    with trio.fail_after(seconds):
        async with trio.open_nursery() as nursery:
            farm = partial(serve, config, doors=house.open, signals=False, stop=stop, key_place=lambda _: place)
            house.grpc = await nursery.start(farm)
            house.look()
            yield house
            stop.set()


async def test_the_door_and_the_desk_agree(tmp_path: Path) -> None:
    async with real_house(tmp_path) as house:
        async with Client(house.address, TOKEN) as client:
            assert (await client.server_info())["status"] == "ready"
            job = await client.submit(SPEC)
            assert job["waiting"]
            assert [each["id"] for each in (await client.jobs(["queued"]))["jobs"]] == [job["id"]]
            async with client.watch(job["id"]) as watch:
                assert (await client.cancel(job["id"], reason="no need"))["state"] == "canceled"
                events = [event async for batch in watch for event in batch.events]
            assert [(event["seq"], event["to"]) for event in events] == [(1, "queued"), (2, "canceled")]
            assert watch.job["state"] == "canceled"
            again = await client.retry(job["id"])
            assert again["retry_of"] == job["id"]
            # The farm's own log is written behind the reader's back.
            noted: list[str] = []
            while "started" not in noted:
                noted = [event["type"] for event in (await client.farm_events(wait=5))["events"]]
        async with talking(house) as talker:
            farm = await talker.result("farm.watch")
            assert {each["id"] for each in farm["jobs"]} == {job["id"], again["id"]}
            assert farm["queue"]["kind"] == "embedded"
        metrics = (await ask(house, "GET", "/metrics")).body.decode()
        assert "blacktree_" in metrics
        assert (await ask(house, "GET", "/readyz")).json["status"] == "ready"
        assert (await ask(house, "GET", f"/api/v1/jobs/{job['id']}/log")).body == b""


async def test_a_scoped_token_sends_no_token_of_a_forge_elsewhere(tmp_path: Path) -> None:
    """The farm's own token for a forge would else go to whatever address a source names."""
    team = ["example.test/team/**", "ssh://example.test:2222/team/**"]
    source = {"repository": SPEC["repository"]}
    evil = "http://evil.test"
    async with real_house(tmp_path) as house, Client(house.address, TOKEN) as farm:
        made = await farm.call("token.create", {"name": "team", "role": "admin", "repositories": team})
        await farm.call("source.add", {**source, "name": "set", "forge_token": "x", "forge_url": "http://forge.test"})
        async with Client(house.address, made["secret"]) as scoped:
            await scoped.call("source.add", {**source, "name": "own", "forge_token": "example.test"})
            by_ssh = {"name": "ssh", "repository": "ssh://git@example.test:2222/team/app.git"}
            await scoped.call("source.add", {**by_ssh, "forge_token": "example.test"})
            for method, params in (
                ("source.add", {**source, "name": "s", "forge_token": "example.test", "forge_url": evil}),
                ("source.add", {**source, "name": "s", "forge_token": "github.com"}),
                ("source.edit", {"name": "own", "changes": {"forge_url": evil}}),
                ("source.edit", {"name": "own", "changes": {"forge_token": "github.com"}}),
                ("source.edit", {"name": "set", "changes": {"forge_url": evil}}),
            ):
                with pytest.raises(NotAllowed) as refused:
                    await scoped.call(method, params)
                assert refused.value.code == "farm_wide", params
            # What the farm's admin has set is no hindrance for the rest.
            await scoped.call("source.edit", {"name": "set", "changes": {"branches": ["main"]}})


async def test_a_scoped_token_takes_nobodys_deployment_over(tmp_path: Path) -> None:
    """Not by a job with `run`, not by a retry of one, not by a source: `deployment.deploy` is not the only way."""
    team, run = ["example.test/team/**"], {"name": "shop"}
    async with real_house(tmp_path) as house, Client(house.address, TOKEN) as farm:
        made = await farm.call("token.create", {"name": "team", "role": "admin", "repositories": team})
        async with Client(house.address, made["secret"]) as scoped:
            # Before anybody else has the name it is theirs.
            first = await scoped.submit({**SPEC, "run": run})
            await scoped.cancel(first["id"])
            theirs = {"repository": "https://example.test/others/app.git", "run": run}
            await farm.call("deployment.deploy", theirs)
            source = {"name": "s", "repository": SPEC["repository"]}
            await scoped.call("source.add", {**source, "name": "plain"})
            for method, params in (
                ("job.submit", {**SPEC, "run": run}),
                ("job.retry", {"id": first["id"]}),
                ("source.add", {**source, "run": run}),
                ("source.add", {**source, "spec": {"run": run, "tags": ["{branch}"]}}),
                ("source.edit", {"name": "plain", "changes": {"run": run}}),
                ("source.edit", {"name": "plain", "changes": {"spec": {"run": run}}}),
            ):
                with pytest.raises(NotAllowed) as refused:
                    await scoped.call(method, params)
                assert refused.value.code == "name_not_allowed", method
            # The farm itself deploys where it likes, and a name of their own is theirs.
            assert (await farm.call("job.submit", {**SPEC, "run": run}))["state"] == "queued"
            await scoped.call("source.edit", {"name": "plain", "changes": {"run": {"name": "own"}}})
