"""The state drawn as text, at sizes from a stamp to a wall, and with the worst that a name can hold."""

import io
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.console import Console, Group

from blacktree.cli.top import hearing
from blacktree.cli.top.state import JobPage, State, Wish
from tests.cli.top.sample import QUEUE, a_farm, a_job, a_page, a_worker, drawn, log_events, rows_of

SIZES = [(20, 5), (20, 8), (30, 10), (40, 12), (60, 16), (80, 24), (120, 40), (200, 60)]
STATES = ["queued", "assigned", "running", "canceling", "succeeded", "failed", "canceled", "timed_out", "lost"]


def sized(state: State, size: tuple[int, int]) -> State:
    return replace(state, width=size[0], height=size[1])


def is_whole(state: State) -> None:
    rows = rows_of(state)
    assert len(rows) == state.height
    assert [row.cell_len for row in rows] == [state.width] * state.height


FARM = a_farm(*(a_job(f"job-{number:02}", STATES[number % 9]) for number in range(70)))
VIEWS = {
    "jobs": FARM,
    "filtered": replace(FARM, words="queued", typing=True),
    "empty": State(server="http://farm.example"),
    "farm": replace(FARM, view="farm"),
    "many workers": hearing.farm(replace(FARM, view="farm"), {"workers": [a_worker(f"w{n}") for n in range(99)]}),
    "job": replace(FARM, page=a_page()),
    "paused": replace(FARM, page=a_page(anchor=50, wrap=True, times=True)),
    "opening": replace(FARM, page=JobPage(id="j1")),
    "help": replace(FARM, help=True),
    "asked": replace(FARM, asked=Wish("cancel", "job-01")),
    "lost": hearing.lost(FARM, "the connection was lost"),
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_fills_every_screen_exactly(view: str, size: tuple[int, int]) -> None:
    is_whole(sized(VIEWS[view], size))


def test_jobs_say_what_matters() -> None:
    rows = drawn(sized(a_farm(a_job("done", "succeeded"), a_job("waits", "queued"), a_job("runs")), (110, 20)))
    assert re.match(r" blacktree  jobs  farm .* 1 running  3 waiting  ● http://farm.example:8080", rows[0])
    assert rows[1].split() == ["JOB", "STATE", "REPOSITORY", "COMMIT", "WORKER", "WAITED", "TOOK"]
    # What runs, what waits, what has ended.
    assert [row.split()[0] for row in rows[2:5]] == ["runs", "waits", "done"]
    runs = "runs   running    git.example/team/app.git main"
    assert rows[2].startswith(runs)
    assert rows[2].split()[-4:] == ["0123456789ab", "w1", "30s", "9m30"]
    assert rows[3].split()[-2:] == ["0123456789ab", "10m00"]
    assert rows[4].split()[-1] == "4m30"


def test_a_job_that_waits_says_why_and_one_that_failed_too() -> None:
    failed = a_job("bad", "failed", error={"message": "make failed"})
    state = sized(a_farm(a_job("waits", "queued"), failed), (80, 12))
    assert " waits: all 4 slots are busy, 3rd in line" in drawn(state)[-2]
    assert " why: make failed" in drawn(replace(state, chosen_job="bad"))[-2]


def test_a_narrow_screen_keeps_the_job_and_its_state() -> None:
    rows = drawn(sized(a_farm(a_job("j1")), (20, 8)))
    assert rows[2].split() == ["j1", "running"]


def test_the_chosen_job_is_in_sight_wherever_it_is() -> None:
    for number in (0, 3, 35, 68, 69):
        state = sized(replace(FARM, chosen_job=f"job-{number:02}"), (80, 24))
        assert any(row.startswith(f"job-{number:02} ") for row in drawn(state))


def test_the_filter_takes_every_word() -> None:
    state = a_farm(a_job("one"), a_job("two", "failed"))
    assert [job["id"] for job in replace(state, words="APP failed").listed()] == ["two"]
    assert [job["id"] for job in replace(state, words="main w1 0123").listed()] == ["one", "two"]
    assert replace(state, words="nothing").listed() == []
    assert " 0 of 2 jobs: nothing" in drawn(sized(replace(state, words="nothing"), (60, 10)))[-2]


def test_the_farm_says_what_matters() -> None:
    rows = drawn(sized(replace(a_farm(), view="farm"), (100, 20)))
    assert rows[1].strip() == "broker rabbitmq connected"
    assert rows[2].strip() == "waiting 3  slots 2/8  arm 1  default 2"
    assert rows[4].split() == ["w1", "free", "■□□□", "1/4", "default", "78G", "2s", "j1"]
    assert rows[5].split()[1] == "draining"
    assert rows[7].strip() == "12:00:00 worker_joined    worker w1 joined"
    away = hearing.farm(a_farm(), {"queue": QUEUE | {"connected": False, "reason": "refused"}})
    assert "away: refused" in drawn(sized(replace(away, view="farm"), (100, 20)))[1]


def test_a_job_shows_its_steps_and_the_end_of_its_log() -> None:
    page = a_page()
    finished = {"seq": 101, "time": "2026-01-01T12:01:00Z", "attempt": 1, "type": "step_finished", "step": "s"}
    page = hearing.printed(page, [finished | {"name": "RUN make", "cached": False, "seconds": 61.0, "ok": False}])
    rows = drawn(sized(replace(FARM, page=page), (80, 24)))
    assert rows[1].startswith(" running  git.example/team/app.git main  0123456789ab")
    assert rows[2].strip() == "waited 30s · took 9m30 · worker w1"
    assert rows[3].strip() == "✗ RUN make  1 min 01 s"
    assert rows[-2].strip() == "==> RUN make: FAILED in 1 min 01 s"
    assert rows[-3].strip() == "line 100"
    assert rows[5].strip() == "line 84"


def test_scrolled_up_it_says_so_and_what_came_meanwhile() -> None:
    page = hearing.printed(a_page(anchor=50), log_events(101, 7))
    rows = drawn(sized(replace(FARM, page=page), (80, 24)))
    assert rows[-2].strip() == "line 50"
    assert rows[-1].startswith(" paused, 57 newer · f follows ")


def test_long_lines_are_cut_or_wrapped() -> None:
    page = hearing.printed(a_page(2), [log_events(3, 1)[0] | {"line": "漢" * 50 + "end"}])
    cut = drawn(sized(replace(FARM, page=page), (60, 24)))
    assert any(row.startswith("漢" * 29) and row.endswith("…") for row in cut)
    wrapped = [row.rstrip() for row in drawn(sized(replace(FARM, page=replace(page, wrap=True)), (60, 24)))]
    assert "漢" * 30 in wrapped
    assert "漢" * 20 + "end" in wrapped


def test_colours_of_a_log_stay() -> None:
    page = hearing.printed(a_page(2), [log_events(3, 1)[0] | {"line": "\x1b[31mred\x1b[0m \x1b[2Jplain"}])
    (row,) = (row for row in rows_of(sized(replace(FARM, page=page), (60, 24))) if row.plain.startswith("red"))
    assert row.plain.rstrip() == "red plain"
    assert [(span.start, span.end) for span in row.spans if "color(1)" in str(span.style)] == [(0, 3)]


def test_steps_that_do_not_fit_give_way_to_those_that_run_or_failed() -> None:
    steps = [{"step": str(n), "name": f"step {n}", "attempt": 1, "cached": n != 2, "seconds": 0.1} for n in range(20)]
    steps = [step | {"ok": step["step"] != "2", "started_at": None} for step in steps]
    page = hearing.opened(JobPage(id="j1"), a_job(steps=steps), 1)
    rows = drawn(sized(replace(FARM, page=page), (60, 16)))
    assert [row.split()[2] for row in rows[3:7]] == ["2", "17", "18", "19"]


NASTY = st.text(max_size=12) | st.lists(
    st.sampled_from(
        [
            "\x1b",
            "[",
            "2J",
            "31m",
            "]0;t",
            "\x07",
            "\x9b",
            "\r",
            "\n",
            "\t",
            "\x00",
            "漢",
            "e\u0301",
            "\u202e",
            "\u2028",
            "x",
        ]
    ),
    max_size=10,
).map("".join)


@settings(max_examples=60)
@given(st.sampled_from(["jobs", "farm", "job"]), st.sampled_from(SIZES), st.lists(NASTY, min_size=6, max_size=6))
def test_nothing_from_outside_steers_the_terminal(view: str, size: tuple[int, int], words: list[str]) -> None:
    spec: Any = {"repository": f"https://{words[0]}/x", "ref": words[1], "image": words[2]}
    job = a_job("j1", "queued", spec=spec, worker_id=words[3], waiting=words[4], commit=words[5])
    state = a_farm(job, words=words[0], message=words[1])
    workers = [a_worker(words[1] or "w", state=words[2], pool=words[3], refusal=words[4])]
    queue = {"kind": words[0], "connected": False, "reason": words[5], "queued": {words[3]: 1}}
    state = hearing.farm(state, {"workers": workers, "queue": queue})
    event = {"seq": 1, "time": "2026-01-01T12:00:00Z", "type": words[1], "text": words[2]}
    state = sized(replace(hearing.farm_events(state, [event]), view="farm" if view == "farm" else "jobs"), size)
    if view == "job":
        page = hearing.opened(JobPage(id="j1"), job, 1)
        begun = {"seq": 1, "time": words[0], "attempt": 1, "type": "step_started", "step": "s", "name": words[5]}
        lines = [each | {"line": word} for each, word in zip(log_events(2, 6), words, strict=True)]
        page = hearing.printed(page, [begun | {"time": "2026-01-01T12:00:00Z"}, *lines])
        state = replace(state, page=replace(page, wrap=len(words[0]) % 2 == 0))
    is_whole(state)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=size[0], height=size[1], color_system="truecolor")
    console.print(Group(*rows_of(state)))
    rest = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert rest.count("\n") == size[1]
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", rest)
