"""What the options of `blacktree deploy` become, and what is refused before anything is sent."""

import json
from pathlib import Path
from typing import Any

import click
import pytest

from blacktree.cli.deploy import deploy, is_repository, wanted_of
from blacktree.cli.deploylog import outcome_lines, reached
from blacktree.cli.deployments import _note, deployment_lines, settled
from blacktree.cli.runoptions import parse_size
from blacktree.runspec import RunSpec
from tests.cli.running import run


def wanted(*arguments: str) -> dict[str, Any]:
    """What would be sent."""
    context = deploy.make_context("deploy", list(arguments))
    options = dict(context.params)
    for name in ("detach", "as_json"):
        options.pop(name)
    return wanted_of(options.pop("image_or_repository"), options)


def test_nothing_but_what_was_said_is_sent() -> None:
    assert wanted("app:1", "--name", "web") == {"image": "app:1", "run": {"name": "web"}}


def test_every_option_finds_its_field() -> None:
    sent = wanted(
        *("app:1", "--name", "web", "-p", "8080:80", "-p", "0.0.0.0:81:81", "-e", "A=b", "-e", "C=d=e"),
        *("--secret", "db", "-v", "data:/data", "-v", "/srv/x:/x:ro", "--command", "sh -c 'a b'"),
        *("--health-http", "80/healthz", "--start", "1m", "--replicas", "2", "--memory", "256m", "--cpus", "0.5"),
        *("--pids", "64", "--restart", "never", "--strategy", "recreate", "--drain", "3s", "--settle", "2"),
        *("--failover", "2m", "--pool", "arm"),
    )
    import msgspec

    parsed = msgspec.convert(sent["run"], RunSpec)
    assert sent["pool"] == "arm"
    assert [(port.address, port.host, port.container) for port in parsed.ports] == [
        ("127.0.0.1", 8080, 80),
        ("0.0.0.0", 81, 81),
    ]
    assert parsed.env == {"A": "b", "C": "d=e"}
    assert parsed.secrets == ["db"]
    assert [(each.source, each.target, each.read_only) for each in parsed.volumes] == [
        ("data", "/data", False),
        ("/srv/x", "/x", True),
    ]
    assert parsed.command == ["sh", "-c", "a b"]
    assert parsed.health.http is not None
    assert (parsed.health.http.port, parsed.health.http.path, parsed.health.start_seconds) == (80, "/healthz", 60.0)
    assert (parsed.replicas, parsed.memory_bytes, parsed.cpus, parsed.pids) == (2, 256 << 20, 0.5, 64)
    assert parsed.restart.on_exit == "never"
    assert (parsed.strategy.kind, parsed.strategy.drain_seconds, parsed.strategy.settle_seconds) == ("recreate", 3, 2)
    assert parsed.failover_seconds == 120


def test_options_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"name": "web", "replicas": 3, "env": {"A": "1", "B": "2"}, "health": {"retries": 9}}))
    sent = wanted("app:1", "--run-file", str(file), "--replicas", "1", "-e", "B=3", "--health-tcp", "80")
    assert sent["run"] == {
        "name": "web",
        "replicas": 1,
        "env": {"A": "1", "B": "3"},
        "health": {"retries": 9, "tcp": {"port": 80}},
    }


def test_a_repository_becomes_a_job_with_run() -> None:
    sent = wanted(
        "https://x.example/app.git", "--name", "web", "--ref", "v1", "-t", "team/app:1", "--push", "--key", "k"
    )
    assert sent == {
        "repository": "https://x.example/app.git",
        "ref": "v1",
        "image": "team/app",
        "tags": ["1"],
        "push": True,
        "run": {"name": "web"},
        "idempotency_key": "k",
    }


@pytest.mark.parametrize(
    ("target", "is_one"),
    [
        ("https://github.com/owner/app", True),
        ("git@github.com:owner/app.git", True),
        ("./app", True),
        (".", True),
        ("/srv/app", True),
        ("app.git", True),
        ("app", False),
        ("team/app:1", False),
        ("registry.example:5000/team/app@sha256:" + "0" * 64, False),
        ("sha256:" + "0" * 64, False),
    ],
)
def test_a_repository_is_told_from_an_image(target: str, is_one: bool) -> None:
    assert is_repository(target) is is_one


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["app:1"], "needs a name"),
        (["app:1", "--name", "x", "--port", "80"], "8080:80"),
        (["app:1", "--name", "x", "--memory", "lots"], "256m"),
        (["app:1", "--name", "x", "--volume", "data"], "SOURCE:TARGET"),
        (["app:1", "--name", "x", "--health-http", "http://x"], "PORT/PATH"),
        (["app:1", "--name", "x", "--ref", "main"], "--ref goes with a repository"),
        (["app:1", "--name", "x", "--build-secret", "s"], "--build-secret goes with a repository"),
        (["app:1", "--name", "x", "--env", "NOT_THERE_AT_ALL"], "no such variable"),
        (["app:1", "--run-file", "/nowhere/run.json"], "No such file"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(arguments: list[str], said: str) -> None:
    ran = run("deploy", *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize("body", ["not json", "[]"])
def test_a_run_file_that_is_none(body: str, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(body)
    with pytest.raises(click.UsageError):
        wanted("app", "--run-file", str(file))


def test_logs_are_of_a_job_or_of_a_deployment() -> None:
    assert run("logs").code == 2
    assert run("logs", "job", "--deployment", "web").code == 2


def test_sizes() -> None:
    assert [parse_size(text) for text in ("1024", "1k", "1.5m", "2GiB", "64mb")] == [
        1024, 1024, 3 << 19, 2 << 30, 64 << 20
    ]  # fmt: skip


def a_deployment(**changes: Any) -> dict[str, Any]:
    version = {
        "number": 1, "state": "running", "reason": "", "reference": "app:1", "image": "app:1", "job_id": None,
        "rollback_of": None, "last_lines": [], "drain_until": None, "restarting": False, "run": {"ports": []},
    }  # fmt: skip
    replica = {
        "version": 1, "index": 0, "worker_id": "w", "state": "healthy", "restarts": 0, "reason": "", "address": "",
    }  # fmt: skip
    return {
        "name": "web", "state": "running", "serving": 1, "target": None, "waiting": None,
        "updated_at": "2026-01-01T00:00:00Z", "versions": [version], "replicas": [replica], **changes,
    }  # fmt: skip


def test_a_restart_is_over_when_everything_is_healthy_again() -> None:
    healthy = a_deployment()
    assert settled(healthy) == 0
    assert settled(a_deployment(target=2)) is None
    assert settled(a_deployment(serving=None)) == 1
    assert settled(a_deployment(versions=[{**healthy["versions"][0], "restarting": True}])) is None
    for state, code in (("ordered", None), ("starting", None), ("failed", 1)):
        assert settled(a_deployment(replicas=[{**healthy["replicas"][0], "state": state}])) == code


def test_a_deployment_for_a_person() -> None:
    shown = deployment_lines(a_deployment(waiting="a worker"))
    assert shown[0].split() == ["deployment", "web"]
    assert "waits for  a worker" in shown
    assert "version 1 running, app:1" in shown
    assert "replica 1/0 healthy on worker w" in shown


def test_a_version_that_nobody_can_reach_is_told_as_that() -> None:
    run = {"ports": [{"address": "127.0.0.1", "host": 80, "container": 8080}]}
    plain = a_deployment()
    version, replica = {**plain["versions"][0], "run": run}, {**plain["replicas"][0], "code": "", "serving": False}
    assert reached(a_deployment(replicas=[replica]), 1) == 0, "it has no ports"
    assert reached(a_deployment(versions=[version], replicas=[replica]), 1) is None
    assert reached(a_deployment(versions=[version], replicas=[{**replica, "serving": True}]), 1) == 0
    replaced = {**version, "drain_until": "2026-01-01T00:00:00Z"}
    assert reached(a_deployment(versions=[replaced], replicas=[replica], serving=2), 1) == 0
    assert reached(a_deployment(versions=[{**version, "state": "failed"}], serving=None), 1) == 1
    taken = {**replica, "code": "port_taken", "reason": "port 127.0.0.1:80 is taken by another program"}
    found = a_deployment(versions=[version], replicas=[taken])
    assert reached(found, 1) == 1
    assert taken["reason"] in outcome_lines(found, 1)[-1]
    assert _note(found) == taken["reason"]
