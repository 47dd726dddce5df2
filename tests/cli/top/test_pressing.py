"""What keys do, and what the feeds do to what is seen. Without a terminal and without a farm."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from blacktree.cli.top import hearing
from blacktree.cli.top.pressing import pressed
from blacktree.cli.top.state import State, Wish
from tests.cli.top.sample import a_farm, a_job, a_page, a_worker, drawn, log_events, rows_of

FARM = a_farm(a_job("a"), a_job("b", "queued"), a_job("c", "failed"))


def after(state: State, *keys: str) -> tuple[State, list[Wish]]:
    wishes: list[Wish] = []
    for key in keys:
        state, more = pressed(state, key)
        wishes += more
    return state, wishes


def chosen(state: State) -> str:
    job = state.job_at()
    return job["id"] if job else ""


def test_the_list_is_walked() -> None:
    assert [chosen(after(FARM, *["down"] * count)[0]) for count in range(4)] == ["a", "b", "c", "c"]
    assert chosen(after(FARM, "end", "k")[0]) == "b"
    assert chosen(after(FARM, "page down", "home")[0]) == "a"


def test_of_many_jobs_that_the_feed_does_not_tell_of_none_is_passed_over() -> None:
    many = [a_job(f"w{number}", "queued") for number in range(50)] + [a_job("ran"), a_job("assigned", "assigned")]
    asked: dict[str, int] = {}
    for turn in range(1, 4):
        some = hearing.in_turn(many, asked)[:20]
        assert {"ran", "assigned"} == {job["id"] for job in some[:2]}
        asked |= {job["id"]: turn for job in some}
    assert asked.keys() == {job["id"] for job in many}


def test_the_choice_stays_with_its_job_when_others_come() -> None:
    state, _ = after(FARM, "down")
    newer = hearing.farm(state, {"jobs": [a_job("new", created_at="2026-01-01T13:00:00Z")]})
    assert chosen(newer) == "b"


def test_cancel_asks_first() -> None:
    state, wishes = after(FARM, "c")
    assert wishes == []
    assert "cancel job a? y/n" in drawn(state)[-1]
    for key in ("n", "enter", "escape", "c", "q"):
        assert after(state, key)[1] == []
    assert after(state, "y")[1] == [Wish("cancel", "a")]
    assert after(FARM, "end", "c", "y")[1] == []
    assert "nothing to cancel" in after(FARM, "end", "c")[0].message


def test_retry_is_for_what_has_ended() -> None:
    assert after(FARM, "end", "r")[1] == [Wish("retry", "c")]
    assert after(FARM, "r")[1] == []
    assert "nothing to retry" in after(FARM, "r")[0].message


def test_a_worker_is_drained_and_back() -> None:
    state, wishes = after(FARM, "tab", "d")
    assert (state.view, wishes) == ("farm", [Wish("drain", "w1")])
    assert after(state, "down", "d")[1] == [Wish("undrain", "w2")]
    jobs, _ = after(state, "enter")
    assert (jobs.view, jobs.words) == ("jobs", "w1")
    assert after(a_farm(), "2", "1")[0].view == "jobs"
    assert after(State(server="x", view="farm"), "d", "down", "enter")[1] == []


def test_the_filter_is_typed() -> None:
    state, _ = after(FARM, "/", "f", "q", "backspace", "a", "i")
    assert (state.words, state.typing) == ("fai", True)
    assert chosen(state) == "c"
    assert after(state, "enter", "q")[1] == [Wish("quit")]
    assert after(state, "escape")[0].words == ""
    assert after(state, "enter", "escape")[0].words == ""


def test_leaving() -> None:
    assert after(FARM, "q")[1] == [Wish("quit")]
    for state in (FARM, after(FARM, "/")[0], after(FARM, "c")[0], after(FARM, "?")[0], after(FARM, "enter")[0]):
        assert after(state, "^c")[1] == [Wish("quit")]
        assert after(state, "^z")[1] == [Wish("suspend")]
    state, wishes = after(FARM, "enter", "q")
    assert (state.page, wishes) == (None, [Wish("open", "a"), Wish("close")])


def test_help_is_shown_until_any_key() -> None:
    state, _ = after(FARM, "?")
    assert "cancel it (asks first)" in "\n".join(drawn(state))
    assert after(state, "q") == (FARM, [])


def page_of(state: State) -> Any:
    assert state.page is not None
    return state.page


def seen(state: State) -> list[str]:
    return [row.split()[1] for row in drawn(state) if row.startswith("line ")]


def test_reading_back_stops_following_and_the_end_resumes_it() -> None:
    state = replace(FARM, page=a_page())
    back, _ = after(state, "up")
    assert page_of(back).anchor == 99
    assert seen(back)[-1] == "99"
    assert page_of(after(back, "down")[0]).anchor is None
    for key in ("end", "f", "G"):
        assert page_of(after(state, "page up", "page up", key)[0]).anchor is None
    top, wishes = after(state, "home")
    assert (seen(top)[0], wishes) == ("2", [])
    more = replace(back, page=hearing.printed(page_of(back), log_events(101, 5)))
    assert seen(more) == seen(back)
    assert seen(after(more, "f")[0])[-1] == "105"


def test_a_log_that_is_in_sight_as_a_whole_is_always_followed() -> None:
    state = replace(FARM, page=a_page(3))
    assert page_of(after(state, "up", "page up", "home")[0]).anchor is None


def test_older_stretches_are_asked_for_before_they_are_needed_and_once() -> None:
    state = replace(FARM, page=a_page(300, first=5000))
    state, wishes = after(state, *["page up"] * 3)
    assert wishes == [Wish("older", "j1", 5000)]
    page = hearing.fetched(page_of(state), log_events(4000, 1000), 4000)
    assert (page.log.first, page.log.next, len(page.log.lines)) == (4000, 5300, 1300)
    assert seen(replace(state, page=page)) == seen(state)
    assert [line.seq for line in page.log.lines] == list(range(4000, 5300))


def test_what_is_printed_while_somebody_reads_far_back_is_fetched_when_it_is_wanted() -> None:
    page = a_page(hearing.MOST_LINES, anchor=2000)
    page = hearing.printed(page, log_events(4001, 3000))
    assert (len(page.log.lines), page.log.next, page.log.end) == (4000, 4001, 7001)
    state, wishes = after(replace(FARM, page=replace(page, anchor=3990)), "page down")
    assert wishes == [Wish("newer", "j1", 4001)]
    assert page_of(state).anchor is not None
    page = hearing.fetched(page_of(state), log_events(4001, 1000), 4001)
    assert page.log.next == 5001
    state, wishes = after(replace(state, page=page), "f")
    assert wishes == [Wish("end", "j1")]


def test_the_beginning_of_a_long_log() -> None:
    state, wishes = after(replace(FARM, page=a_page(300, first=5000)), "g")
    assert wishes == [Wish("newer", "j1", 1)]
    page = hearing.fetched(page_of(state), log_events(1, 1000), 1)
    assert seen(replace(state, page=page))[0] == "1"
    assert hearing.printed(page, log_events(5300, 2)).log.end == 5302


def test_a_busy_log_is_bounded() -> None:
    page = a_page(10)
    for first in range(11, 30_011, 500):
        page = hearing.printed(page, log_events(first, 500))
        assert len(page.log.lines) <= hearing.MOST_LINES + 500
    assert seen(replace(FARM, page=page))[-1] == "30010"
    huge = hearing.printed(page, [log_events(30_011, 1)[0] | {"line": "x" * 100_000}])
    assert len(huge.log.lines[-1].text) <= hearing.LONGEST_LINE


def test_a_new_attempt_begins_its_steps_anew() -> None:
    page = a_page()
    begun = {"time": "2026-01-01T12:00:00Z", "attempt": 2, "type": "step_started", "step": "s", "name": "again"}
    page = hearing.printed(page, [begun | {"seq": 101}])
    assert [step.name for step in page.steps] == ["again"]
    moved = {"seq": 102, "time": "2026-01-01T12:00:00Z", "attempt": 2, "type": "state", "from": "running"}
    assert hearing.printed(page, [moved | {"to": "failed", "reason": ""}]).job["state"] == "failed"


def test_an_outage_is_seen_and_its_end_too() -> None:
    state = hearing.lost(FARM, "the connection was lost; trying again")
    assert "✗ the connection was lost; trying again" in drawn(state)[0]
    # What had ended meanwhile is told anew.
    again = hearing.farm(state, {"whole": True, "jobs": [a_job("a", "succeeded")], "workers": []})
    assert (again.trouble, again.message, list(again.jobs)) == ("", "connected again", ["a"])


def test_only_so_many_jobs_are_kept_and_none_that_is_active() -> None:
    state = hearing.jobs(FARM, [a_job(f"x{number:04}", "failed") for number in range(1500)])
    assert len(state.jobs) == hearing.MOST_JOBS
    assert {"a", "b"} <= set(state.jobs)


KEYS = [*"gGjkqcrdfwt/?12ynb x", "up", "down", "home", "end", "page up", "page down", "tab", "enter", "escape"]
KEYS += ["left", "right", "backspace", "^l", "^u"]


@settings(max_examples=80)
@given(st.lists(st.sampled_from(KEYS), max_size=40), st.integers(1, 400), st.integers(5, 30))
def test_whatever_is_typed_the_screen_is_whole(keys: list[str], first: int, height: int) -> None:
    state = replace(FARM, height=height, page=a_page(300, first=first))
    state = hearing.farm(state, {"workers": [a_worker(f"w{number}") for number in range(5)]})
    end = first + 300
    for key in keys:
        state, wishes = pressed(state, key)
        for wish in wishes:
            if wish.what in ("older", "newer") and state.page is not None:
                begin = wish.number if wish.what == "newer" else max(1, wish.number - 100)
                until = min(end, begin + 100) if wish.what == "newer" else wish.number
                page = hearing.fetched(state.page, log_events(begin, until - begin), begin)
                state = replace(state, page=page)
        if state.page is not None:
            numbers = [line.seq for line in state.page.log.lines]
            assert numbers == sorted(set(numbers))
        rows = rows_of(state)
        assert len(rows) == height
        assert all(row.cell_len == state.width for row in rows)
