"""`blacktree notify …` against a door, the same over HTTP, and targets in the configuration file."""

import json
from pathlib import Path

import pytest
import trio

from blacktree.config import load
from blacktree.errors import BadRequest
from blacktree.secret import SecretKind
from tests.api.little import TOKEN, open_house
from tests.api.talk import ask
from tests.cli.running import Ran, one_line, run
from tests.parts.receiver import SECRET, open_receiver

SLOW = 100.0


async def test_declared_listed_tried_changed_removed() -> None:
    with open_receiver() as receiver:
        async with open_house(seconds=SLOW) as house:
            await house.control.secrets.put("hook", SECRET, kind=SecretKind.WEBHOOK)

            async def call(*arguments: str) -> Ran:
                environ = {"BLACKTREE_SERVER": f"http://{house.address}", "BLACKTREE_TOKEN": TOKEN}
                return await trio.to_thread.run_sync(lambda: run("notify", *arguments, env=environ))

            made = await call("add", "chat", "--url", receiver.url(), "--secret", "hook", "--event", "job.failed",
                              "--event", "deployment.*", "--repository", "x.org/**", "--json")  # fmt: skip
            assert made.code == 0, made
            value = json.loads(made.out)
            assert (value["events"], value["repositories"]) == (["job.failed", "deployment.*"], ["x.org/**"])
            assert (value["paused"], value["configured"], value["waiting"]) == (False, False, 0)
            assert (await call("add", "chat", "--url", receiver.url(), "--secret", "hook")).code == 2
            assert "job.failed" in one_line(
                await call("add", "x", "--url", "https://x", "--secret", "s", "--event", "y")
            )
            tried = await call("test", "chat")
            assert (tried.code, tried.out.startswith("chat took it: HTTP 204")) == (0, True)
            receiver.script["/hook"] = [500]
            failed = await call("test", "chat", "--json")
            assert (failed.code, json.loads(failed.out.splitlines()[-1])["status"]) == (1, 500)
            log = json.loads((await call("log", "chat", "--json")).out)["deliveries"]
            assert [each["result"] for each in log] == ["failed", "delivered"]
            shown = (await call("log", "chat")).out
            assert "\x1b" not in shown
            assert "HTTP 500" in shown
            assert [each.genuine for each in receiver.all] == [True, True]
            changed = await call("edit", "chat", "--paused", "--clear", "events", "--json")
            assert (json.loads(changed.out)["paused"], json.loads(changed.out)["events"]) == (True, [])
            assert (await call("edit", "chat")).code == 2
            assert json.loads((await call("show", "chat", "--json")).out) == json.loads(changed.out)
            assert "paused" in (await call("show", "chat")).out
            listed = await call("list", "--json")
            assert [each["name"] for each in json.loads(listed.out)["targets"]] == ["chat"]
            assert "paused" in (await call("list")).out
            over_http = (await ask(house, "GET", "/api/v1/notify")).json
            assert over_http == json.loads(listed.out)
            deliveries = (await ask(house, "GET", "/api/v1/notify/chat/deliveries")).json["deliveries"]
            assert deliveries == log
            assert (await ask(house, "POST", "/api/v1/notify/chat/test")).json["result"] == "delivered"
            assert (await ask(house, "GET", "/api/v1/notify", token=False)).status == 401
            assert (await call("remove", "chat")).code == 0
            assert (await call("list")).out == ""
            assert (await ask(house, "GET", "/api/v1/notify/chat")).status == 404


FILE = """
[notify.chat]
url = "https://chat.example.org/hooks/farm"
secret = "chat-hook"
events = ["job.*"]
"""


def test_targets_in_the_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "farm.toml"
    path.write_text(FILE)
    config, origins = load(str(path), environ={})
    assert config.notify["chat"].wants("job.failed", None)
    assert origins["notify", "chat"] == f"file {path}"
    for wrong, told in (("ur = 1", "url"), ('events = ["no"]', "notify.chat.events"), ('name = "x"', "name")):
        path.write_text(FILE.replace('events = ["job.*"]', wrong))
        with pytest.raises(BadRequest) as caught:
            load(str(path), environ={})
        assert caught.value.code == "invalid_config"
        assert told in str(caught.value)
