"""`blacktree source …` against a door, and sources in the configuration file."""

import json
from pathlib import Path

import pytest
import trio

from blacktree.config import load
from blacktree.errors import BadRequest
from tests.api.little import TOKEN, open_house
from tests.cli.running import Ran, one_line, run


async def test_declared_listed_changed_removed(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text('{"context": "web"}')
    (tmp_path / "bad.json").write_text("[]")
    async with open_house() as house:

        async def call(*arguments: str) -> Ran:
            environ = {"BLACKTREE_SERVER": f"http://{house.address}", "BLACKTREE_TOKEN": TOKEN}
            return await trio.to_thread.run_sync(lambda: run("source", *arguments, env=environ))

        url = "https://git.example.org/team/app.git"
        made = await call("add", "app", "--repository", url, "--branch", "main", "--branch", "r/*", "--json",
                          "--spec", str(tmp_path / "spec.json"), "--webhook-secret", "hook", "--no-supersede",
                          "--allow-forks", "cache", "--secret", "npm", "--forge", "gitea")  # fmt: skip
        assert made.code == 0, made
        value = json.loads(made.out)
        assert (value["branches"], value["spec"], value["supersede"]) == (["main", "r/*"], {"context": "web"}, False)
        assert (value["allow_forks"], value["secrets"], value["forge"]) == (["cache"], ["npm"], "gitea")
        assert (await call("add", "app", "--repository", url)).code == 2
        other = await call("add", "other", "--repository", url, "--pull-requests")
        assert "/api/v1/webhooks/github/other" in other.out
        assert "--webhook-secret" in other.err
        assert one_line(await call("add", "local", "--repository", "/srv/app")).startswith(
            "blacktree: source.repository"
        )
        assert (await call("add", "bad", "--repository", url, "--spec", str(tmp_path / "bad.json"))).code == 2
        changed = await call("edit", "app", "--tag", "v*", "--clear", "branches", "--supersede", "--json")
        assert (json.loads(changed.out)["tags"], json.loads(changed.out)["branches"]) == (["v*"], [])
        assert (await call("edit", "app")).code == 2
        shown = await call("show", "app", "--json")
        assert json.loads(shown.out) == json.loads(changed.out)
        assert "tags" in (await call("show", "app")).out
        listed = await call("list", "--json")
        assert [each["name"] for each in json.loads(listed.out)["sources"]] == ["app", "other"]
        assert "pull requests" in (await call("list")).out
        assert (await call("remove", "app")).code == 0
        assert "did you mean" in one_line(await call("show", "othr"))


FILE = """
[sources.app]
repository = "https://git.example.org/team/app.git"
branches = ["main"]
webhook_secret = "hook"

[sources.app.spec]
tags = ["{short}"]
"""


def test_sources_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "blacktree.toml"
    path.write_text(FILE)
    config, origins = load(str(path), environ={})
    assert config.sources["app"].branches == ["main"]
    assert config.sources["app"].spec == {"tags": ["{short}"]}
    assert origins["sources", "app"] == f"file {path}"
    shown = run("config", "--config", str(path), "--json")
    assert json.loads(shown.out)["sources"]["app"]["value"]["webhook_secret"] == "hook"
    assert "[sources]" in run("config", "--config", str(path)).out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FILE.replace("branches", "branchs"), "did you mean `branches`?"),
        (FILE.replace('"{short}"', "1"), "sources.app.spec.tags"),
        (FILE.replace("https://git.example.org", "/srv"), "sources.app.repository"),
        (FILE.replace("[sources.app.spec]", "[sources.app.spec]\nref = 'main'"), "sources.app.spec.ref"),
        ("[sources]\napp = 1\n", "[sources.app]"),
        ("[source.app]\n", "did you mean `sources`?"),
        (FILE.replace("sources.app", "sources.'App 1'"), "name"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "blacktree.toml"
    path.write_text(text)
    with pytest.raises(BadRequest) as caught:
        load(str(path), environ={})
    assert caught.value.code == "invalid_config"
    assert said in str(caught.value)
