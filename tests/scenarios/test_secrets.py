"""kill -9 of the orchestrator while it keeps secrets or rotates their key: what was answered is there afterwards."""

import base64
import json
from pathlib import Path

import pytest
import trio

from blacktree.cipher import new_key
from blacktree.client.secrets import list_secrets, put_secret, rotate_key
from blacktree.errors import BlacktreeError
from blacktree.keyfile import read_keys, write_keys
from tests.parts.farm import SLOW, open_farm
from tests.parts.written import holders

JOB = {"repository": "https://example.test/team/app.git"}

pytestmark = pytest.mark.timeout(150)


@pytest.mark.parametrize("place", ["before-keep-secret", "after-keep-secret"])
async def test_killed_while_rotating(tmp_path: Path, place: str) -> None:
    key = tmp_path / "key"
    write_keys(key, [new_key()])
    values = {f"s{number}": f"the value {number} of this test".encode() for number in range(4)}
    with trio.fail_after(3 * SLOW), open_farm(orchestrator={"secrets_key_file": key}) as farm:
        farm.worker("w1")
        await farm.up()
        async with farm.client() as client:
            for name, value in values.items():
                await put_secret(client, "build", name, value)
            before = (await list_secrets(client))["key"]["id"]
            farm.arm(place)
            with pytest.raises(BlacktreeError):
                await rotate_key(client)
        await farm.orchestrator.ended()
        assert len(read_keys(key)) == 2
        await farm.up()
        async with farm.client() as client:
            listed = await list_secrets(client)
            assert [each["readable"] for each in listed["secrets"]] == [True] * 4
            assert listed["key"]["trouble"] == ""
            done = await rotate_key(client)
            assert done["key"] != before
            assert done["sealed"] == (4 if place.startswith("before") else 3)
            assert [each.id for each in read_keys(key)] == [done["key"]]
            # And they are what a build gets: its worker knows them, and masks what the script prints.
            printed = [
                {"step": name, "bytes_base64": base64.b64encode(value + b"\n").decode()}
                for name, value in values.items()
            ]
            job = await client.submit({**JOB, "secrets": list(values), "build_args": {"SCRIPT": json.dumps(printed)}})
            lines = []
            async with client.watch(job["id"]) as watch:
                async for batch in watch:
                    lines += [event["line"] for event in batch.events if event["type"] == "log"]
            assert watch.job["state"] == "succeeded", watch.job
            assert lines == ["***"] * 4
        for value in values.values():
            assert holders(value, farm.state) == []
