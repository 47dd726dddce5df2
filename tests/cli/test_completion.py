"""Completion: click's scripts, commands and options, and what the farm knows - or nothing, without a word."""

import os
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from click.shell_completion import FishComplete, ShellComplete, ZshComplete

from blacktree.cli import completing
from blacktree.cli.main import COMMANDS, tree
from blacktree.job import JobState
from tests.api.little import TOKEN, open_house
from tests.cli.running import one_line, run


def complete(*words: str, incomplete: str = "", shell: type[ShellComplete] = ShellComplete) -> list[str]:
    made = shell(tree, {}, "blacktree", "_BLACKTREE_COMPLETE")
    return [str(item.value) for item in made.get_completions(list(words), incomplete)]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """What a person would not wait for, a loaded machine may take."""
    monkeypatch.setattr(completing, "SECONDS", 40.0)
    monkeypatch.setenv("BLACKTREE_TOKEN", TOKEN)
    return monkeypatch


def test_commands_options_and_choices() -> None:
    assert complete() == list(COMMANDS)
    assert complete(incomplete="lo") == ["logs"]
    assert "--since" in complete("logs", incomplete="--si")
    assert complete("jobs", "--state", incomplete="can") == ["canceling", "canceled"]
    assert complete("completion") == ["bash", "zsh", "fish"]
    assert complete("biuld", incomplete="x") == []


async def test_ids_and_names_come_from_the_farm(patient: pytest.MonkeyPatch) -> None:
    async def asked(*words: str, incomplete: str = "") -> list[str]:
        return await trio.to_thread.run_sync(partial(complete, *words, incomplete=incomplete))

    async with open_house() as house:
        patient.setenv("BLACKTREE_SERVER", house.address)
        waits, ended = await house.control.new_job(), await house.control.new_job()
        await house.control.finish(ended, JobState.SUCCEEDED)
        assert await asked("job") == [ended, waits]
        assert await asked("logs", incomplete=ended) == [ended]
        assert await asked("cancel") == [waits]
        assert await asked("retry") == [ended]
        assert await asked("drain") == ["w1"]
        assert await asked("build", "--pool") == ["default"]
        assert await asked("stop") == await asked("logs", "--deployment") == []
        # The server may be named on the line, before the command or behind it.
        patient.delenv("BLACKTREE_SERVER")
        assert await asked("--server", house.address, "cancel") == [waits]
        assert await asked("cancel", "--server", house.address) == [waits]
        assert await asked("cancel", "--server", house.address, "--token", "wrong") == []


def test_deployments_by_name(patient: pytest.MonkeyPatch) -> None:
    found = {"deployments": [{"name": "app", "state": "running"}, {"name": "api"}]}
    patient.setattr(completing, "_get", lambda ctx, path: found if path == "/deployments" else None)
    for command in ("stop", "restart", "rollback", "deployment"):
        assert complete(command, incomplete="a") == ["app", "api"]
    assert complete("logs", "--deployment", incomplete="app") == ["app"]


@pytest.mark.parametrize(
    ("path", "key", "words"),
    [
        ("/sources", "sources", ["source", "edit"]),
        ("/notify", "targets", ["notify", "test"]),
        ("/tokens", "tokens", ["token", "revoke"]),
        ("/tokens", "tokens", ["token", "link", "--for"]),
    ],
)
def test_what_is_declared_by_name(path: str, key: str, words: list[str], patient: pytest.MonkeyPatch) -> None:
    patient.setattr(completing, "_get", lambda ctx, asked: {key: [{"name": "a"}]} if asked == path else None)
    assert complete(*words) == ["a"]
    assert complete(words[0], "add" if words[0] != "token" else "create") == []


def test_a_repository_may_be_a_directory() -> None:
    made = ShellComplete(tree, {}, "blacktree", "_BLACKTREE_COMPLETE")
    assert [item.type for item in made.get_completions(["build"], "./a")] == ["dir"]
    assert complete("build", incomplete="https://e") == []


@pytest.mark.parametrize(
    "answer",
    [None, [], {}, {"workers": None}, {"workers": [{}]}, {"workers": [1]}, {"workers": [{"id": 3, "state": 1}]}, "x"],
)
def test_an_answer_that_makes_no_sense_is_nothing(answer: Any, patient: pytest.MonkeyPatch) -> None:
    patient.setattr(completing, "_get", lambda ctx, path: answer)
    assert complete("drain") == []


def test_nothing_that_a_shell_would_obey_gets_on_the_line(patient: pytest.MonkeyPatch) -> None:
    ids = ["$(reboot)", "a b", "-rf", "x;y", "`z`", "é", "w*", "ok-1.example:6000", "", "new\nline"]
    workers = [{"id": each, "state": "free\x1b[2J\n", "pool": "p\tq"} for each in ids]
    patient.setattr(completing, "_get", lambda ctx, path: {"workers": workers})
    assert complete("drain") == ["ok-1.example:6000"]
    patient.setenv("COMP_WORDS", "blacktree drain ")
    patient.setenv("COMP_CWORD", "2")
    assert ZshComplete(tree, {}, "blacktree", "X").complete().splitlines()[1] == r"ok-1.example\:6000"
    patient.setenv("COMP_CWORD", "")
    assert FishComplete(tree, {}, "blacktree", "X").complete() == "plain,ok-1.example:6000\tfree [2J  p q"


def test_a_farm_that_is_silent_or_gone_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete("job") == []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("BLACKTREE_SERVER", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert complete("job") == []
    assert complete("job") == []
    monkeypatch.setenv("BLACKTREE_SERVER", "no server at all")
    assert complete("job") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(shell: str) -> None:
    ran = run("completion", shell)
    assert ran.code == 0
    assert f"_BLACKTREE_COMPLETE={shell}_complete" in ran.out
    assert "bash" in one_line(run("completion", "tcsh"))


def test_a_real_bash_completes(tmp_path: Path) -> None:
    """Without a farm: what a loaded machine does not answer in time is not shown."""
    bash = shutil.which("bash")
    assert bash is not None
    script = tmp_path / "completion"
    script.write_text(run("completion", "bash").out)
    words = f"source {script}; COMP_WORDS=(blacktree logs j --si); COMP_CWORD=3; _blacktree_completion blacktree"
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [bash, "--norc", "-c", f'{words}; echo "${{COMPREPLY[@]}}"']
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("--since\n", "")
