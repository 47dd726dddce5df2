"""A job's page: the log as it comes, folded, found, linked and copied."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.parts.browser import Watched
from tests.parts.whole_farm import WholeFarm
from tests.viewer.conftest import Submit
from tests.viewer.demo import good_build

pytestmark = pytest.mark.timeout(180)


def last_row(page: Page) -> int:
    return int(page.locator(".row").last.get_attribute("data-seq") or 0)


def shown(page: Page) -> list[int]:
    """The numbers of the rows that are painted."""
    numbers: list[int] = page.evaluate(
        "() => [...document.querySelectorAll('.row')].map((row) => Number(row.dataset.seq))"
    )
    return numbers


def test_it_follows_until_one_scrolls_and_again_when_asked(watched: Watched, farm: WholeFarm, submit: Submit) -> None:
    page = watched.page
    talk = ({"seconds": 0.1, "lines": 50, "line": "word-{n}"} for _ in range(3000))
    job = submit({"step": "1", "name": "talk"}, *talk)
    page.goto(f"{farm.url}#/job/{job}")
    expect(page.locator(".row.log").last).to_be_visible()
    seen = last_row(page)
    page.wait_for_function(
        "before => Number(document.querySelector('.row:last-child').dataset.seq) > before + 100", arg=seen
    )
    page.locator(".logview").hover()
    page.mouse.wheel(0, -600)
    resume = page.get_by_role("button", name=re.compile("^Follow"))
    expect(resume).to_be_visible()
    expect(resume).to_have_text(re.compile(r"\d{3,} new"))
    # Once it has come to rest from the wheel: lines go on arriving, and it does not move.
    for _ in range(20):
        still = last_row(page)
        told = resume.text_content() or ""
        expect(resume).not_to_have_text(told)
        if last_row(page) == still:
            break
    assert last_row(page) == still
    # What the reader marks stays marked while lines arrive.
    page.locator(".row .text").nth(3).dblclick()
    marked = page.evaluate("getSelection().toString()")
    assert marked
    told = resume.text_content() or ""
    expect(resume).not_to_have_text(told)
    assert page.evaluate("getSelection().toString()") == marked
    resume.click()
    page.wait_for_function(
        "before => Number(document.querySelector('.row:last-child').dataset.seq) > before", arg=still
    )
    expect(resume).to_be_hidden()
    expect(page.locator(".step.now")).not_to_have_count(0)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .state")).to_have_text("canceled")
    page.get_by_role("button", name="Build again").click()
    expect(page.get_by_role("link", name="first try")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .state")).to_have_text("canceled")


def test_search_links_and_copies(watched: Watched, farm: WholeFarm, submit: Submit) -> None:
    page = watched.page
    job = submit(
        {"step": "1", "name": "first", "lines": 5000, "line": "row {n}"},
        {"lines": 1, "line": "a Needle here"},
        {"step": "2", "name": "second", "lines": 3000, "line": "row {n}"},
        {"lines": 1, "line": "the needle again"},
        {"lines": 1, "line": "ERROR: it broke"},
        {"exit": 1},
    )
    page.goto(f"{farm.url}#/job/{job}")
    expect(page.locator(".trouble")).to_contain_text("exited with code 1")
    expect(page.locator(".trouble")).to_contain_text("In second")
    page.get_by_label("Search the log").fill("needle")
    expect(page.locator(".count")).to_have_text("1 of 2")
    expect(page.locator(".row.current mark")).to_have_text("Needle")
    first = int(page.locator(".row.current").get_attribute("data-seq") or 0)
    page.get_by_label("Search the log").press("Enter")
    expect(page.locator(".count")).to_have_text("2 of 2")
    expect(page.locator(".row.current")).to_contain_text("the needle again")
    page.get_by_role("button", name="First error").click()
    expect(page.locator(".row.current")).to_contain_text("ERROR: it broke")
    page.locator(".timeline button", has_text="second").click()
    expect(page.locator(".row.current")).to_contain_text("second")
    # A link to a range opens there, and what is chosen is what is copied.
    page.goto("about:blank")
    page.goto(f"{farm.url}#/job/{job}/L{first - 1}-{first}")
    expect(page.locator(".row.selected")).to_have_count(2)
    expect(page.locator(".row.selected").last).to_contain_text("a Needle here")
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_text("Copied 2 lines")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "row 5000\na Needle here\n"
    page.locator(".row.selected .number").first.click()
    expect(page.locator(".row.selected")).to_have_count(1)
    expect(page).to_have_url(re.compile(rf"/L{first - 1}$"))
    page.locator(f".row[data-seq='{first + 3}'] .number").click(modifiers=["Shift"])
    expect(page.locator(".row.selected")).to_have_count(5)
    expect(page).to_have_url(re.compile(rf"/L{first - 1}-{first + 3}$"))
    page.get_by_label("Time stamps").select_option("absolute")
    expect(page.locator(".stamp").first).to_have_text(re.compile(r"^\d\d:\d\d:\d\d"))
    page.get_by_label("Time stamps").select_option("relative")
    expect(page.locator(".stamp").first).to_have_text(re.compile(r"^\+"))
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.path().read_text().count("\n") == 8003


def test_steps_fold_and_stages_stand_side_by_side(watched: Watched, farm: WholeFarm, submit: Submit) -> None:
    page = watched.page
    job = submit(*good_build(0.1))
    farm.wait_for(job, "succeeded", seconds=40)
    page.goto(f"{farm.url}#/job/{job}")
    expect(page.locator(".stage")).to_have_count(3)
    # In one look: the list is made anew when the job is told again.
    places = page.evaluate(
        """() => [...document.querySelectorAll('.stage')].map((stage) => {
            const { x, y } = stage.getBoundingClientRect();
            return [x, y];
        })"""
    )
    assert places[0][1] == places[1][1]
    assert places[0][0] != places[1][0]
    expect(page.locator(".step.cached")).to_have_count(3)
    npm = page.get_by_role("button", name="[web 3/4] RUN npm ci")
    expect(npm.first).to_be_visible()
    whole = shown(page)
    page.locator(".fold", has_text="npm ci").click()
    # 41 lines and the step's end; what ran beside it stays.
    expect(page.locator(".row", has_text="npm ci")).to_contain_text("42 lines")
    expect(page.locator(".row", has_text="npm fetched")).to_have_count(0)
    expect(page.locator(".row", has_text="pkg9 v1.9.0")).to_be_visible()
    expect(page.locator(".row", has_text="vite v6")).to_be_visible()
    page.keyboard.press("z")
    expect(page.locator(".row", has_text="npm fetched package 1 of")).to_be_visible()
    page.keyboard.press("z")
    expect(page.locator(".row.log")).to_have_count(0)
    expect(page.locator(".row").last).to_contain_text("succeeded")
    # What is looked for is found in what is folded, and comes to light.
    page.get_by_label("Search the log").fill("package 7 of")
    expect(page.locator(".row.current")).to_contain_text("package 7 of 41")
    page.locator(".logview").focus()
    page.keyboard.press("z")
    page.keyboard.press("Home")
    expect(page.locator(".row").first).to_contain_text("queued")
    assert shown(page)[:20] == whole[:20]
    assert shown(page) == list(range(1, len(shown(page)) + 1))


def test_a_folded_step_stays_folded_while_it_grows(watched: Watched, farm: WholeFarm, submit: Submit) -> None:
    page = watched.page
    talk = ({"seconds": 0.05, "lines": 5, "line": "grows {n}"} for _ in range(3000))
    job = submit({"step": "1", "name": "growing"}, *talk)
    page.goto(f"{farm.url}#/job/{job}")
    expect(page.locator(".row.log").last).to_be_visible()
    page.keyboard.press("Home")
    page.locator(".fold", has_text="growing").click()
    expect(page.locator(".row.log")).to_have_count(0)
    lines = page.locator(".hidden-lines")
    told = lines.text_content() or ""
    expect(lines).not_to_have_text(told)
    expect(page.locator(".row.log")).to_have_count(0)
    page.locator(".fold", has_text="growing").click()
    expect(page.locator(".row.log").first).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .state")).to_have_text("canceled")


def test_a_long_log_opens_at_once_and_only_what_is_seen_is_kept(
    watched: Watched, farm: WholeFarm, submit: Submit
) -> None:
    page = watched.page
    job = submit({"step": "1", "name": "flood", "lines": 200_000, "line": "flood {n}"})
    farm.wait_for(job, "succeeded", seconds=50)
    page.goto(f"{farm.url}#/job/{job}/L150004")
    expect(page.locator(".row.selected .text")).to_have_text("flood 150000")
    page.keyboard.press("End")
    expect(page.locator(".row.log .text").last).to_have_text("flood 200000")
    page.keyboard.press("Home")
    expect(page.locator(".row").first).to_contain_text("queued")
    for _ in range(30):
        page.keyboard.press("PageDown")
    expect(page.locator(".row.missing")).to_have_count(0)
    assert page.locator(".row").count() < 100


def test_wrapped_lines_can_be_read_to_the_last(watched: Watched, farm: WholeFarm, submit: Submit) -> None:
    page = watched.page
    long = "word " * 400
    job = submit({"step": "1", "name": "long", "lines": 300, "line": f"{long}{{n}}"}, {"lines": 1, "line": "the end"})
    farm.wait_for(job, "succeeded", seconds=40)
    page.goto(f"{farm.url}#/job/{job}")
    expect(page.locator(".row.log").first).to_be_visible()
    page.get_by_role("button", name="Wrap").click()
    expect(page.locator(".rows.wrap")).to_be_visible()
    page.locator(".logview").focus()
    page.keyboard.press("End")
    expect(page.locator(".row.moved").last).to_be_in_viewport(ratio=0.9)
    expect(page.locator(".row", has_text="the end")).to_be_in_viewport(ratio=0.9)
    # No line is passed over when one goes up row by row.
    for _ in range(6):
        page.keyboard.press("ArrowUp")
    page.wait_for_function("() => document.querySelector('.rows:not(.end)')")
    numbers = shown(page)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert page.evaluate("localStorage.getItem('wrap')") == "yes"
