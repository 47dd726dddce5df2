"""What of a log is asked for: by text, step and time."""

import re
import warnings
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blacktree.cli.logfilter import LogFilter, Wanted, literal_in
from blacktree.cli.wording import stamp
from tests.cli.running import one_line, run

TIME = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def event(kind: str, minute: int = 0, attempt: int = 1, **keys: Any) -> dict[str, Any]:
    time = (TIME + timedelta(minutes=minute)).isoformat().replace("+00:00", "Z")
    return {"seq": 1, "time": time, "attempt": attempt, "type": kind, **keys}


def log(line: str, step: str = "a", minute: int = 0, attempt: int = 1) -> dict[str, Any]:
    return event("log", minute, attempt, step=step, stream="stdout", line=line)


def started(step: str, name: str, attempt: int = 1) -> dict[str, Any]:
    return event("step_started", attempt=attempt, step=step, name=name)


def passed(wanted: Wanted, *events: dict[str, Any]) -> list[Any]:
    chosen = LogFilter(wanted)
    return [each.get("line", each["type"]) for each in events if chosen.passes(each)]


EVENTS = (
    event("state", to="running"),
    started("a", "RUN make test"),
    log("an error"),
    started("b", "COPY . ."),
    log("\x1b[31merr\x1b[0mor: b", "b"),
    log("fine", "b", minute=5),
    event("notice", 6, code="x", text="an error"),
)


def test_everything_passes_when_nothing_is_asked_for() -> None:
    assert len(passed(Wanted(), *EVENTS)) == len(EVENTS)


def test_text_is_looked_for_in_lines_as_they_are_seen() -> None:
    assert passed(Wanted(re.compile("error")), *EVENTS) == ["an error", "\x1b[31merr\x1b[0mor: b"]
    assert passed(Wanted(re.compile("^error")), *EVENTS) == ["\x1b[31merr\x1b[0mor: b"]
    assert passed(Wanted(re.compile("FINE", re.IGNORECASE)), *EVENTS) == ["fine"]


def test_a_step_is_named_by_its_id_or_a_part_of_its_name() -> None:
    assert passed(Wanted(step="MAKE"), *EVENTS) == ["step_started", "an error"]
    assert passed(Wanted(step="b"), *EVENTS)[0] == "step_started"
    assert passed(Wanted(step="nothing"), *EVENTS) == []


def test_a_step_of_another_attempt_is_another_step() -> None:
    again = (started("a", "COPY", attempt=2), log("second", attempt=2))
    assert passed(Wanted(step="make"), *EVENTS, *again) == ["step_started", "an error"]


def test_steps_that_began_before_are_known() -> None:
    chosen = LogFilter(Wanted(step="make"))
    chosen.know([{"attempt": 1, "step": "a", "name": "RUN make"}])
    assert chosen.passes(log("x"))
    assert chosen.step_seen


def test_all_three_together() -> None:
    wanted = Wanted(re.compile("fine|error"), "COPY", TIME + timedelta(minutes=1))
    assert passed(wanted, *EVENTS) == ["fine"]


@settings(max_examples=400)
@given(st.text("ab.*+?{}^$1,|()[]\\", max_size=12), st.text("ab1,{}", max_size=12))
def test_what_the_server_looks_for_is_in_every_match(pattern: str, line: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = re.compile(pattern).search(line)
    except (re.error, OverflowError):
        return
    if found is not None:
        assert literal_in(pattern) in line


@pytest.mark.parametrize(
    ("pattern", "text"),
    [("error", "error"), ("no such.*file", "no such"), ("a|b", ""), ("x", ""), ("files?: [0-9]", ""), ("co*de", "de")],
)
def test_literals(pattern: str, text: str) -> None:
    assert literal_in(pattern) == text


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["logs", "j", "--grep", "("], "is no regular expression"),
        (["logs", "j", "-i"], "--ignore-case goes with --grep"),
        (["logs", "j", "--since", "yesterday"], "10m, 2h or 2026-01-31T12:00:00Z"),
        (["logs", "j", "--since", "2026-13-01T00:00:00Z"], "is no time"),
        (["logs"], "either a JOB or a --deployment"),
        (["logs", "j", "--deployment", "d"], "either a JOB or a --deployment"),
    ],
)
def test_wrong_usage_is_one_line_with_what_to_do(arguments: list[str], hint: str) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert hint in one_line(ran)


def test_stamps_are_of_one_width() -> None:
    for time in ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.123456Z", "2026-01-31T12:00:00.5Z"):
        assert len(stamp(time)) == len("2026-01-31T12:00:00.000Z")
