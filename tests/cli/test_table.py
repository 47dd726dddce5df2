"""Tables fit into the terminal where they may; a pipe gets every character."""

import os
import sys

import pytest

from blacktree.cli.table import narrowed, print_table, without_middle
from blacktree.clock import now, rfc3339
from tests.cli.running import run

ROWS = [("JOB", "REPOSITORY", "REF", "NOTE"), ("j1", "https://git.example/a-long-team/" + "x" * 60, "main", "w")]


def test_a_pipe_gets_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(ROWS, cut=(1, 2))
    assert ROWS[1][1] in capsys.readouterr().out


def test_a_terminal_gets_lines_that_fit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((60, 24)))
    print_table(ROWS, cut=(1, 2))
    _, line = capsys.readouterr().out.splitlines()
    assert len(line) <= 60
    assert line.startswith("j1   https://git.ex")
    assert line.endswith("xxx  main  w")


def test_nothing_stands_behind_a_line_s_end(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([("A", "NOTE"), ("long", "")])
    assert capsys.readouterr().out == "A     NOTE\nlong\n"


def test_a_worker_that_takes_nothing_is_not_called_free(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = {"id": "w", "state": "free", "pool": "default", "busy": 0, "slots": 2, "free_disk_bytes": 0, "engine": ""}
    worker |= {"last_seen_at": rfc3339(now()), "refusal": "no engine answers"}
    monkeypatch.setattr("blacktree.cli.connection.ask", lambda question: [worker])
    assert run("workers").out.splitlines()[1].split()[:3] == ["w", "refusing", "default"]
    worker["refusal"] = ""
    assert run("workers").out.splitlines()[1].split()[:3] == ["w", "free", "default"]


def test_what_may_not_be_cut_is_not() -> None:
    assert narrowed([30, 30], [], 20) == [30, 30]
    assert narrowed([30, 30], [1], 20) == [30, 12]
    assert narrowed([5, 5], [0, 1], 80) == [5, 5]
    assert without_middle("short", 12) == "short"
