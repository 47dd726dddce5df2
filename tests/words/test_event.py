"""Events as readers get them."""

import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from blacktree.event import Lines, Notice, events_json

TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ODD = st.sampled_from(["", "\\", "\\n", "%d", '"', "\t", "\r", "\x7f", "\u2028", "\N{GRINNING FACE}", "plain"])
LINE = st.lists(ODD | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"))).map("".join)


@given(st.lists(LINE, min_size=1), st.integers(1, 1 << 40), st.sampled_from(["1", "%s", '"\\']), st.booleans())
def test_lines_are_events_of_their_own(lines: list[str], first: int, step: str, partial: bool) -> None:
    record = Lines(TIME, 2, step, "stdout", "".join(f"{line}\n" for line in lines), partial)
    found = json.loads(b"[" + events_json(record, first) + b"]")
    assert [event.pop("line") for event in found] == lines
    assert [event.pop("seq") for event in found] == list(range(first, first + len(lines)))
    rest = {"time": "2026-01-02T03:04:05.000000Z", "attempt": 2, "type": "log", "step": step, "stream": "stdout"}
    assert all(event == (rest | {"partial": True} if partial else rest) for event in found)


def test_any_other_record_is_one_event() -> None:
    event = json.loads(events_json(Notice(TIME, 1, "code", "text"), 7))
    assert (event["seq"], event["type"], event["code"], event["step"]) == (7, "notice", "code", None)
