"""A job's page: the log as it comes, found, linked and copied; what came from outside stays text."""

import re

from playwright.sync_api import Page, expect

from tests.parts.browser import Watched
from tests.parts.whole_farm import WholeFarm
from tests.viewer.conftest import Submit, send

HOSTILE = "<img src=x onerror=alert(1)> \u202eevil\u202c <script>alert(2)</script>"


def last_row(page: Page) -> int:
    return int(page.locator(".row").last.get_attribute("data-seq") or 0)


def test_it_follows_until_one_scrolls_and_again_when_asked(watched: Watched, farm: WholeFarm, submit: Submit) -> None:
    page = watched.page
    job = submit({"step": "1", "name": "talk"}, *({"seconds": 0.1, "lines": 50, "line": "word {n}"} for _ in range(80)))
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
    still = last_row(page)
    told = resume.text_content() or ""
    expect(resume).not_to_have_text(told)
    assert last_row(page) == still
    resume.click()
    page.wait_for_function(
        "before => Number(document.querySelector('.row:last-child').dataset.seq) > before", arg=still
    )
    expect(resume).to_be_hidden()
    expect(page.locator(".timeline .now")).not_to_have_count(0)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .state")).to_have_text(re.compile("canceled"))
    page.get_by_role("button", name="Build again").click()
    expect(page.get_by_role("link", name="first try")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .state")).to_have_text(re.compile("canceled"))


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
    assert page.url.endswith(f"/L{first - 1}")
    page.get_by_role("button", name="Times").click()
    expect(page.locator(".stamp").first).to_have_text(re.compile(r"^\d\d:\d\d:\d\d"))
    page.get_by_role("button", name="Times").click()
    expect(page.locator(".stamp").first).to_have_text(re.compile(r"^\+"))
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.path().read_text().count("\n") == 8003


def test_a_long_log_opens_at_once_and_only_what_is_seen_is_kept(
    watched: Watched, farm: WholeFarm, submit: Submit
) -> None:
    page = watched.page
    job = submit({"step": "1", "name": "flood", "lines": 300_000, "line": "flood {n}"})
    farm.wait_for(job, "succeeded", seconds=50)
    page.goto(f"{farm.url}#/job/{job}/L150004")
    expect(page.locator(".row.selected .text")).to_have_text("flood 150000")
    page.keyboard.press("End")
    expect(page.locator(".row.log .text").last).to_have_text("flood 300000")
    page.keyboard.press("Home")
    expect(page.locator(".row").first).to_contain_text("queued")
    for _ in range(30):
        page.keyboard.press("PageDown")
    expect(page.locator(".row.missing")).to_have_count(0)
    assert page.locator(".row").count() < 100


def test_what_comes_from_outside_stays_text(watched: Watched, farm: WholeFarm, submit: Submit) -> None:
    page = watched.page
    job = submit(
        {"step": "1", "name": HOSTILE},
        {"lines": 1, "line": HOSTILE},
        {"lines": 1, "line": "\x1b[31mred\x1b[0m \x1b]0;title\x07plain \x1b[2Jgone \x07bell"},
        {"notice": ["odd", HOSTILE]},
        {"exit": 1},
        ref=HOSTILE.replace("\u202e", "").replace("\u202c", ""),
        labels={HOSTILE: HOSTILE},
    )
    farm.wait_for(job, "failed")
    page.goto(farm.url)
    expect(page.locator(f"tr:has(a[data-job='{job}'])")).to_contain_text("<img src=x")
    page.goto(f"{farm.url}#/job/{job}")
    expect(page.locator(".row.notice")).to_contain_text("<script>alert(2)</script>")
    expect(page.locator(".row.log").first).to_contain_text("<img src=x onerror=alert(1)> ⟨202E⟩evil⟨202C⟩")
    coloured = page.locator(".row.log").nth(1)
    expect(coloured.locator(".text")).to_have_text("red plain gone ⟨0007⟩bell")
    expect(coloured.locator(".c1")).to_have_text("red")
    page.get_by_text("Attempts and spec").click()
    assert page.locator("main img, main script").count() == 0


def test_it_goes_on_after_a_restart_of_the_farm(watched: Watched, farm: WholeFarm) -> None:
    page = watched.page
    steps = [{"step": "1", "name": "talk"}, *({"seconds": 0.2, "lines": 5, "line": "word {n}"} for _ in range(200))]
    job = send(farm, *steps)
    page.goto(f"{farm.url}#/job/{job}")
    expect(page.locator(".row.log").last).to_be_visible()
    address = farm.url.removeprefix("http://")
    farm.stop()
    expect(page.locator("#connection")).to_have_text(re.compile("lost"))
    farm.start("--slots", "4", listen=address)
    expect(page.locator("#connection")).to_have_text("live")
    expect(page.get_by_text(re.compile("nothing is missing"))).to_be_visible()
    page.wait_for_function("() => document.querySelector('.head').textContent.includes('Attempts2')")
    expect(page.locator(".row.log").last).to_be_visible()
    numbers = page.evaluate("() => [...document.querySelectorAll('.row')].map((row) => Number(row.dataset.seq))")
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .state")).to_have_text(re.compile("canceled"))
