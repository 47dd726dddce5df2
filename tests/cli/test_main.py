"""The command tree: help everywhere, errors in one line, exit codes."""

import errno
import os
import pty
import subprocess
import sys
from pathlib import Path

import click
import pytest

from blacktree.cli import exits
from blacktree.cli.main import COMMANDS, _report
from blacktree.errors import BadRequest, Broken, Conflict, NotAllowed, NotFound, StorageFailed, Unavailable
from tests.cli.running import one_line, run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    ran = run(command, "--help")
    assert ran.code == 0
    assert "Example" in ran.out
    assert f"blacktree {command}" in ran.out
    assert "--debug" in ran.out


def test_the_tree_lists_every_command_and_an_example() -> None:
    ran = run("--help")
    assert ran.code == 0
    assert all(f"\n  {command} " in ran.out for command in COMMANDS)
    assert "Examples:" in ran.out


def test_without_a_command_the_help_is_on_stderr() -> None:
    ran = run()
    assert (ran.code, ran.out) == (2, "")
    assert "Commands:" in ran.err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["biuld"], "did you mean `build`?"),
        (["xyzzy"], "commands: up, orchestrator"),
        (["--nope"], "see `blacktree --help`"),
        (["jobs", "--nope"], "see `blacktree jobs --help`"),
        (["cancel"], "Missing argument 'JOB'"),
        (["build", "x", "--timeout", "soon"], "90s, 15m, 2h"),
        (["build", "x", "--priority", "11"], "0<=x<=9"),
        (["build", "x", "--build-arg", "=1"], "NAME=VALUE"),
        (["jobs", "--state", "asleep"], "queued"),
        (["logs", "j", "--from", "0"], "x>=1"),
        (["up", "--slots", "0"], "1<=x<=1024"),
        (["config", "--config", "/nonexistent/x.toml"], "cannot read /nonexistent/x.toml"),
    ],
)
def test_wrong_usage_is_one_line_with_what_to_do(arguments: list[str], hint: str) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    line = one_line(ran)
    assert line.startswith("blacktree: ")
    assert hint in line


def test_a_wrong_variable_is_one_line_with_the_nearest_name() -> None:
    ran = run("config", env={"BLACKTREE_WORKER_SLOT": "3"})
    assert ran.code == 2
    assert "did you mean `BLACKTREE_WORKER_SLOTS` (`slots` in section [worker])?" in one_line(ran)
    ran = run("config", env={"BLACKTREE_WORKR_POOL": "x"})
    assert "did you mean `BLACKTREE_WORKER_POOL` (`pool` in section [worker])?" in one_line(ran)


@pytest.mark.parametrize("command", [["jobs"], ["job", "x"], ["logs", "x"], ["cancel", "x"], ["workers"], ["events"]])
def test_no_farm_anywhere_is_exit_6_with_advice(command: list[str]) -> None:
    ran = run(*command)
    assert (ran.code, ran.out) == (6, "")
    assert "start a farm with `blacktree up`" in one_line(ran)


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_server_that_does_not_answer_is_exit_6(place: str) -> None:
    server = ["--server", "http://127.0.0.1:9", "--token", "t"]
    ran = run(*server, "jobs") if place == "before" else run("jobs", *server)
    assert (ran.code, ran.out) == (6, "")
    assert "http://127.0.0.1:9" in one_line(ran)


def test_a_traceback_only_with_debug() -> None:
    quiet = run("jobs")
    loud = run("jobs", "--debug")
    assert "Traceback" not in quiet.err
    assert "Traceback" in loud.err
    assert loud.code == quiet.code == 6


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadRequest("x"), 2),
        (NotFound("x"), 2),
        (Conflict("x"), 2),
        (NotAllowed("x"), 2),
        (Unavailable("x"), 6),
        (Unavailable("x", code="address_in_use"), 2),
        (StorageFailed("x", code="state_in_use"), 2),
        (OSError(errno.EADDRINUSE, "in use"), 2),
        (KeyboardInterrupt(), 130),
        (Broken("x"), 70),
        (RuntimeError("x"), 70),
    ],
)
def test_exit_codes_of_errors(error: BaseException, code: int) -> None:
    assert exits.code_for(error) == code


def test_a_group_is_told_cause_by_cause(capsys: pytest.CaptureFixture[str]) -> None:
    inner = ExceptionGroup("b", [BadRequest("first", advice="do this"), BadRequest("first", advice="do this")])
    group = BaseExceptionGroup("a", [inner, OSError(errno.EADDRINUSE, "Address already in use")])
    assert _report(group, debug=False) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "blacktree: first; do this"
    assert "choose another address" in lines[1]
    assert len(lines) == 2


def test_an_error_of_many_lines_is_told_in_one() -> None:
    assert exits.line_for(BadRequest("a\nb", advice="c\n\td")) == "a b; c d"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (NotFound("no job 'x'"), "no job 'x'; `blacktree jobs` lists them"),
        (
            BadRequest("spec.pool: Expected `str` matching regex '^[a-z]'", path="spec.pool"),
            "spec.pool: is not of the form that it needs: small letters, digits and `-`, at most 32",
        ),
        (
            BadRequest("spec.x: Expected `str` matching regex '^[a-z]'", path="spec.x"),
            "spec.x: is not of the form that it needs",
        ),
        (
            BadRequest(
                "config.worker.pool: Expected `str` matching regex '^[a-z]' (file w)", path="config.worker.pool"
            ),
            "config.worker.pool: is not of the form that it needs (file w): small letters, digits and `-`, at most 32",
        ),
    ],
)
def test_what_says_little_by_itself_is_told_in_words(error: BaseException, line: str) -> None:
    assert exits.line_for(error) == line


def test_every_end_of_a_job_has_its_code() -> None:
    assert exits.JOB_CODES == {"succeeded": 0, "failed": 1, "canceled": 3, "timed_out": 4, "lost": 5}


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, blacktree.cli.main as m\ntry: m.tree(['--help'])\nexcept SystemExit: pass\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"trio", "rich", "structlog", "trio_websocket", "docker", "asyncio"} & set(loaded)


def test_help_is_quick() -> None:
    """No heavy package is imported for it; what the interpreter takes by itself is none of our business."""
    said = "import sys, atexit; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr));"
    said += "from blacktree.cli.main import main; sys.argv = ['blacktree', '--help']; main()"
    ran = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    heavy = {"trio", "asyncio", "grpclib", "docker", "boto3", "starlette", "rich", "structlog", "httpx", "msgspec"}
    assert "click" in ran.stderr.split()
    assert heavy & set(ran.stderr.split()) == set()


@pytest.fixture
def snowed(tmp_path: Path) -> list[str]:
    """A command that prints what no single-byte encoding has."""
    settings = tmp_path / "snow.toml"
    settings.write_text('[worker]\nlabels = {weather = "☃ ü"}\n', encoding="utf-8")
    return [sys.executable, "-m", "blacktree", "config", "--config", str(settings)]


def test_a_pipe_gets_utf_8_whatever_the_locale(snowed: list[str]) -> None:
    environ = os.environ | {"PYTHONIOENCODING": "latin-1"}
    ran = subprocess.run([*snowed, "--json"], env=environ, capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert "☃ ü" in ran.stdout.decode()


def test_a_terminal_of_another_encoding_shows_what_it_can(snowed: list[str]) -> None:
    ours, theirs = pty.openpty()
    environ = os.environ | {"PYTHONIOENCODING": "latin-1"}
    with subprocess.Popen(snowed, env=environ, stdout=theirs, stderr=subprocess.PIPE) as running:
        os.close(theirs)
        shown = b""
        try:
            while more := os.read(ours, 65536):
                shown += more
        except OSError:
            pass  # how Linux tells the end of a terminal
        os.close(ours)
        assert running.stderr is not None
        assert running.stderr.read() == b""
    assert running.returncode == 0
    assert "? ü" in shown.decode("latin-1")


def test_a_word_that_is_no_text_is_refused_in_one_line() -> None:
    command = [sys.executable, "-m", "blacktree", "job", b"\xff"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert (
        ran.stderr == "blacktree: '\\xff' is not text in this locale; write and name it in UTF-8, in a UTF-8 locale\n"
    )


def test_the_version_is_told() -> None:
    ran = run("--version")
    assert ran.code == 0
    assert "blacktree" in ran.out


def test_short_helps_do_not_drift() -> None:
    """The list of commands is written down once more, so that `--help` is quick; it must name what exists."""
    import importlib

    for name, (module, _) in COMMANDS.items():
        command = getattr(importlib.import_module(f"blacktree.cli.{module}"), name)
        assert isinstance(command, click.Command)
        assert command.name == name
