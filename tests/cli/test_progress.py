"""How events look on a pipe, for a program, and on a terminal."""

import io
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from blacktree.cli.connection import say
from blacktree.cli.joblog import unknown_step
from blacktree.cli.jobs import job_lines
from blacktree.cli.live import LivePrinter
from blacktree.cli.main import tree
from blacktree.cli.progress import JsonPrinter, PlainPrinter
from blacktree.cli.table import print_table
from blacktree.cli.wording import ending, progress_text, seconds, shown

EVENTS: list[dict[str, Any]] = [
    {"seq": 1, "type": "state", "from": None, "to": "queued", "reason": "", "attempt": 0},
    {"seq": 2, "type": "state", "from": "queued", "to": "running", "reason": "", "attempt": 1},
    {"seq": 3, "type": "step_started", "step": "a", "name": "RUN make", "attempt": 1},
    {"seq": 4, "type": "step_started", "step": "b", "name": "COPY x", "attempt": 1},
    {"seq": 5, "type": "log", "step": "a", "stream": "stdout", "line": "one", "attempt": 1},
    {"seq": 6, "type": "log", "step": "b", "stream": "stdout", "line": "two", "attempt": 1},
    {"seq": 7, "type": "log", "step": "b", "stream": "stdout", "line": "long ", "partial": True, "attempt": 1},
    {"seq": 8, "type": "log", "step": "b", "stream": "stdout", "line": "line", "attempt": 1},
    {"seq": 9, "type": "progress", "step": "a", "current": 1, "total": 2, "unit": "bytes", "attempt": 1},
    {"seq": 10, "type": "step_finished", "step": "b", "name": "COPY x", "cached": True, "seconds": 0, "ok": True},
    {
        "seq": 11,
        "type": "step_finished",
        "step": "a",
        "name": "RUN make",
        "cached": False,
        "seconds": 1.25,
        "ok": False,
    },
    {"seq": 12, "type": "notice", "code": "output_clipped", "text": "the rest was clipped", "step": "a"},
]
JOB: dict[str, Any] = {
    "id": "j1",
    "state": "failed",
    "error": {"message": "make failed", "step": "RUN make", "exit_code": 2, "last_lines": ["x.c:1"], "advice": "look"},
}


def test_plain_lines_say_whose_they_are() -> None:
    out = io.StringIO()
    with PlainPrinter(out=out) as printer:
        printer.begin("j1")
        for event in EVENTS:
            printer.event(event)
        printer.end(JOB)
    assert out.getvalue().splitlines() == [
        "==> job j1",
        "==> queued",
        "==> running (attempt 1)",
        "==> RUN make",
        "==> COPY x",
        "==> RUN make",
        "one",
        "==> COPY x",
        "two",
        "long line",
        "==> COPY x: cached",
        "==> RUN make: FAILED in 1.2 s",
        "==> note: the rest was clipped",
        "job j1 failed: make failed",
        "  in step RUN make, exit code 2",
        "  | x.c:1",
        "  look",
        "  again: blacktree retry j1",
    ]


def test_json_is_one_document_a_line() -> None:
    out = io.StringIO()
    with JsonPrinter(out=out) as printer:
        for event in EVENTS:
            printer.event(event)
        printer.end(JOB)
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [*EVENTS, {"job": JOB}]


def test_the_live_picture_ends_as_a_record() -> None:
    out = io.StringIO()
    with LivePrinter(Console(file=out, force_terminal=True, width=80)) as printer:
        printer.begin("j1")
        for event in EVENTS:
            printer.event(event)
        printer.end(JOB)
    text = out.getvalue()
    for word in ("job j1", "COPY x", "cached", "RUN make", "the rest was clipped", "make failed", "x.c:1"):
        assert word in text


def test_below_the_steps_are_the_lines_of_those_that_run() -> None:
    picture = Console(file=io.StringIO(), force_terminal=True, width=80)
    with LivePrinter(Console(file=io.StringIO(), force_terminal=True, width=80)) as printer:
        for event in EVENTS[:10]:
            printer.event(event)
        picture.print(printer._picture())
        printer.end(JOB)
    assert isinstance(picture.file, io.StringIO)
    text = picture.file.getvalue()
    assert "one" in text
    assert "two" not in text


@pytest.mark.parametrize(
    ("current", "total", "said"),
    [
        (0, 31, "0 of 0 kB"),
        (2_300, 450_000, "2 of 450 kB"),
        (0, 2_500_000, "0.0 of 2.5 MB"),
        (900, 0, "1 kB"),
        (3_000_000, 0, "3.0 MB"),
    ],
)
def test_sizes_are_told_in_a_unit_that_fits(current: int, total: int, said: str) -> None:
    assert progress_text({"current": current, "total": total, "unit": "bytes"}) == said


def test_a_job_says_when_and_how_long_in_few_characters() -> None:
    job = {
        "id": "j1",
        "state": "canceled",
        "spec": {"repository": "/r", "ref": None, "max_attempts": 3},
        "tries": 0,
        "attempts": [],
        "steps": [],
        "created_at": "2026-01-31T12:00:00.123456Z",
        "started_at": "2026-01-31T12:00:01.500000Z",
        "finished_at": "2026-01-31T12:01:06.000000Z",
    } | dict.fromkeys(("waiting", "commit", "retry_of"))
    rows = dict(line.split(maxsplit=1) for line in job_lines(job)[:-1])
    assert rows["created"] == "2026-01-31T12:00:00Z"
    assert rows["took"] == "1 min 04 s"
    assert "took" not in str(job_lines(job | {"started_at": None}))


def test_the_way_to_try_again_is_told_once() -> None:
    error = {"message": "worker w lost", "advice": "submit it again with `blacktree retry`"}
    lines = ending({"id": "j1", "state": "lost", "error": error})
    assert lines == ["job j1 lost: worker w lost", "  again: blacktree retry j1"]


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        ("\x1b[2J\x1b[Hgone", "gone"),
        ("\x1b]0;title\x07x", "x"),
        ("10%\r50%\r100%", "100%"),
        ("\x1b[?1049hx", "x"),
        ("\x1b[3", ""),
        ("\x1b[\x00?25lx", "x"),
        ("\x1bP1$r\x1b\\x\x1bcy", "xy"),
        ("a\x08b\x00c\td", "abc\td"),
        ("\x9b2Jx", "2Jx"),
        # What comes after it on the terminal must be seen: FAILED, and whoever types there next.
        ("\x1b[8mgone", "\x1b[8mgone\x1b[0m"),
    ],
)
def test_a_terminal_is_not_steered_by_a_build(line: str, seen: str) -> None:
    assert shown(line, terminal=True) == seen
    assert shown(line, terminal=False) == line


class Terminal(io.StringIO):
    """Takes words as a terminal does."""

    def isatty(self) -> bool:
        return True


STEERING = "\x1b]52;c;ZXZpbA==\x1b\\\x1b[2J\x9b2J"


def test_what_goes_around_a_log_does_not_steer_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """How a job ended (a failing command is told there), why it waits, names of steps, tables, errors."""
    out, told = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", told)
    monkeypatch.setattr(sys, "stderr", told)
    with LivePrinter(Console(file=out, force_terminal=True, width=200)) as printer:
        printer.event({"type": "state", "from": "assigned", "to": "queued", "reason": f"left {STEERING}"})
        printer.note(f"waits {STEERING}")
        printer.end({**JOB, "error": {"message": f"failed: {STEERING}"}})
    JsonPrinter().note(f"waits {STEERING}")
    PlainPrinter().note(unknown_step("x", [f"RUN {STEERING}"]))
    say(f"outage {STEERING}")
    print_table([("REF",), (f"main{STEERING}",)])
    with pytest.raises(SystemExit):
        tree([f"no{STEERING}such"])
    for text in (out.getvalue(), told.getvalue()):
        assert not any(each in text for each in ("\x1b]", "\x1b[2J", "\x9b"))
    for word in ("left", "waits", "failed: "):
        assert word in out.getvalue()
    for word in ("waits", "RUN", "outage", "main", "such"):
        assert word in told.getvalue()


PIECES = [
    "\x1b",
    "\x1b[",
    "?25l",
    "31m",
    "2J",
    "\x1b]0;",
    "\x07",
    "\x1b\\",
    "P",
    "\x08",
    "\t",
    "\r",
    "x",
    " ",
    ";",
    "[",
    "é",
]


@given(st.text(st.characters(codec="utf-8")) | st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_only_colours_pass(line: str) -> None:
    import re

    rest = re.sub(r"\x1b\[[0-9;]*m", "", shown(line, terminal=True))
    assert "\x1b" not in rest
    assert not re.search(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]", rest)


def test_times() -> None:
    assert [seconds(value) for value in (0.04, 9.96, 59.4, 61, 3700)] == [
        "0.0 s",
        "10.0 s",
        "59 s",
        "1 min 01 s",
        "1 h 01 min",
    ]


def test_an_image_is_told_by_its_names() -> None:
    image = {"reference": "a:1", "id": "sha256:0", "digest": None, "references": ["a:1", "a:2"]}
    assert ending({"id": "j", "state": "succeeded", "image": image}) == ["image a:1", "image a:2", "id sha256:0"]
    assert ending({"id": "j", "state": "succeeded", "image": None}) == ["job j succeeded"]
