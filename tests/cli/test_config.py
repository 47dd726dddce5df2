"""`blacktree config`: values, origins, and no secret."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blacktree.cli.config import mask
from tests.cli.running import run


def test_values_and_their_origins(tmp_path: Path) -> None:
    file = tmp_path / "b.toml"
    file.write_text('[worker]\nslots = 7\npool = "arm"\n[orchestrator]\nlease_seconds = 9\n')
    ran = run("config", "--config", str(file), "--json", env={"BLACKTREE_WORKER_POOL": "x86", "WORKER_ID": "w7"})
    assert ran.code == 0
    shown = json.loads(ran.out)
    assert shown["worker"]["slots"] == {"value": 7, "origin": f"file {file}"}
    assert shown["worker"]["pool"] == {"value": "x86", "origin": "environment BLACKTREE_WORKER_POOL"}
    assert shown["worker"]["id"] == {"value": "w7", "origin": "environment WORKER_ID"}
    assert shown["orchestrator"]["lease_seconds"]["value"] == 9
    assert shown["queue"]["prefetch"]["origin"] == "default"


def test_an_empty_state_directory_is_shown_as_what_it_means(tmp_path: Path) -> None:
    shown = json.loads(run("config", "--json", env={"XDG_STATE_HOME": str(tmp_path)}).out)
    assert shown["worker"]["state_directory"]["value"] == f"{tmp_path}/blacktree/worker"


def test_an_engine_from_its_own_variable_is_shown_with_it() -> None:
    env = {"DOCKER_HOST": "unix:///run/x.sock"}
    shown = json.loads(run("config", "--json", env=env).out)["worker"]["engine"]
    assert shown == {"value": "unix:///run/x.sock", "origin": "environment DOCKER_HOST"}
    env["BLACKTREE_WORKER_ENGINE"] = "/run/y.sock"
    shown = json.loads(run("config", "--json", env=env).out)["worker"]["engine"]
    assert shown == {"value": "/run/y.sock", "origin": "environment BLACKTREE_WORKER_ENGINE"}


def test_secrets_are_masked_in_both_forms() -> None:
    env = {"BLACKTREE_ORCHESTRATOR_BROKER_URL": "amqp://me:hunter2@rabbit:5672/v"}
    for ran in (run("config", env=env), run("config", "--json", env=env)):
        assert ran.code == 0
        assert "hunter2" not in ran.out + ran.err
        assert "amqp://me:***@rabbit:5672/v" in ran.out
    assert "[orchestrator]" in run("config").out


def test_the_addresses_of_targets_are_masked(tmp_path: Path) -> None:
    """They may bear a token, as those of chats do; what is shown here is shown to others."""
    file = tmp_path / "b.toml"
    file.write_text(
        '[notify.chat]\nurl = "https://chat.example/services/hunter2?key=hunter3"\nsecret = "s"\n'
        '[notify.bare]\nurl = "https://chat.example?key=hunter2"\nsecret = "s"\n'
    )
    for ran in (run("config", "--config", str(file)), run("config", "--config", str(file), "--json")):
        assert ran.code == 0
        assert "hunter" not in ran.out + ran.err
        assert "https://chat.example/***" in ran.out


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("", ""),
        ("amqp://rabbit", "amqp://rabbit"),
        ("amqp://u@rabbit/", "amqp://u@rabbit/"),
        ("amqp://u:p@rabbit/", "amqp://u:***@rabbit/"),
        ("amqp://u:p@ss/w@rabbit/", "amqp://u:***@rabbit/"),
        ("amqp://u:p%3Fq@rabbit/v?password=x&heartbeat=3", "amqp://u:***@rabbit/v?password=***&heartbeat=3"),
        ("hunter2", "***"),
    ],
)
def test_masks(url: str, shown: str) -> None:
    assert mask(url) == shown


@given(st.text("abcXYZ0189/@:%.-?&=#", min_size=1, max_size=20))
def test_no_password_survives(password: str) -> None:
    marked = f"Q{password}Q"
    assert marked not in mask(f"amqp://user:{marked}@host/vhost")


def test_pools_that_scale_from_file_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "b.toml"
    file.write_text("[scaling]\ninterval_seconds = 3\n[scaling.pools.arm]\nmaximum = 7\n")
    shown = json.loads(run("config", "--config", str(file), "--json").out)["scaling"]
    assert shown["interval_seconds"]["value"] == 3
    assert shown["pools"]["value"]["arm"]["maximum"] == 7
    env = {"BLACKTREE_SCALING_POOLS": '{"x86": {"minimum": 1}}', "BLACKTREE_SCALING_INTERVAL_SECONDS": "5"}
    shown = json.loads(run("config", "--config", str(file), "--json", env=env).out)["scaling"]
    assert list(shown["pools"]["value"]) == ["x86"]
    assert shown["interval_seconds"]["value"] == 5
    file.write_text("[scaling.pools.arm]\nmaximun = 7\n")
    ran = run("config", "--config", str(file))
    assert ran.code == 2
    assert "unknown key `maximun` in [scaling.pools.arm]" in ran.err
    assert "did you mean `maximum`?" in ran.err
    assert run("config", env={"BLACKTREE_SCALING_POOLS": "maximum=3"}).code == 2
