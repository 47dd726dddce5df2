"""The pages around a job's: the list, the form, the farm; as a person uses them."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.parts.browser import Watched
from tests.parts.whole_farm import WholeFarm
from tests.viewer.conftest import Submit
from tests.viewer.demo import ask, deployment
from tests.viewer.test_trouble import log_in

pytestmark = pytest.mark.timeout(180)


def test_a_wrong_token_does_not_come_in(browser: Browser, farm: WholeFarm) -> None:
    page = browser.new_page()
    page.set_default_timeout(40_000)
    refused = page.get_by_text("That did not work")
    for _ in range(20):
        page.goto(farm.url)
        page.fill("input[name=token]", "wrong")
        page.click("button")
        # Again when the browser dropped the form: its own page has none.
        page.wait_for_function("() => !document.querySelector('form') || document.body.innerText.includes('not work')")
        if refused.count():
            break
    expect(refused).to_be_visible()
    assert page.request.get(f"{farm.url}/viewer/any/viewer.js").status == 401
    page.close()


def test_the_list_is_live_and_can_be_filtered(watched: Watched, farm: WholeFarm, submit: Submit) -> None:
    page = watched.page
    page.goto(farm.url)
    expect(page.locator("#connection")).to_have_text("live")
    good = submit({"lines": 1}, repository="/nowhere/list-good")
    bad = submit({"lines": 1}, {"exit": 2}, repository="/nowhere/list-bad")
    waits = submit(repository="/nowhere/list-waits", pool="nobody")
    expect(page.locator(f"tr:has(a[data-job='{good}'])")).to_contain_text("succeeded")
    expect(page.locator(f"tr:has(a[data-job='{bad}'])")).to_contain_text("failed")
    expect(page.locator(f"tr:has(a[data-job='{bad}'])")).to_contain_text("exited with code 2")
    expect(page.locator(f"tr:has(a[data-job='{waits}'])")).to_contain_text("no worker")
    page.get_by_label("State").select_option("failed")
    expect(page.locator(f"a[data-job='{good}']")).to_have_count(0)
    expect(page.locator(f"a[data-job='{bad}']")).to_be_visible()
    page.get_by_label("State").select_option("")
    page.get_by_label("Pool").select_option("nobody")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Pool").select_option("")
    page.get_by_label("Repository").fill("LIST-GOOD")
    expect(page.locator("tbody tr")).to_have_count(1)
    # The address holds the filter; whoever opens it sees the same.
    expect(page).to_have_url(re.compile(r"#/jobs\?repository=LIST-GOOD$"))
    page.reload()
    expect(page.get_by_label("Repository")).to_have_value("LIST-GOOD")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Text").fill(waits)
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Cancel nowhere/list-waits").click()
    expect(page.locator("tbody tr")).to_contain_text("canceled")
    page.get_by_label("Text").fill(good)
    page.locator(f"a[data-job='{good}']").click()
    expect(page.locator(".head")).to_contain_text("succeeded")


def test_a_job_that_many_newer_ones_have_passed_is_still_seen_to_end(
    watched: Watched, farm: WholeFarm, submit: Submit, tmp_path: Path
) -> None:
    page = watched.page
    ends = tmp_path / "ends"
    long = submit({"until": str(ends)}, repository="/nowhere/list-long")
    page.goto(farm.url)
    row = page.locator(f"tr:has(a[data-job='{long}'])")
    expect(row).to_contain_text("running")
    # `farm.watch` tells of the newest hundred alone.
    for _ in range(100):
        last = submit(repository="/nowhere/list-short")
    farm.wait_for(last, "succeeded", seconds=120)
    expect(page.locator(f"tr:has(a[data-job='{last}'])")).to_contain_text("succeeded")
    ends.touch()
    expect(row).to_contain_text("succeeded")


def test_what_begins_far_down_in_a_long_line_is_seen_to_run(
    watched: Watched, farm: WholeFarm, submit: Submit, tmp_path: Path
) -> None:
    page = watched.page
    page.goto(farm.url)
    worker = ask(farm, "/api/v1/workers")["workers"][0]["id"]
    ask(farm, f"/api/v1/workers/{worker}/drain", {"drain": True})
    ends = tmp_path / "ends"
    waiting = [submit({"until": str(ends)}, repository="/nowhere/list-line") for _ in range(150)]
    page.get_by_label("Repository").fill("list-line")
    row = page.locator(f"tr:has(a[data-job='{waiting[0]}'])")
    expect(row.or_(page.get_by_role("button", name="Older jobs")).first).to_be_visible()
    if not row.count():
        page.get_by_role("button", name="Older jobs").click()
    expect(row).to_contain_text("queued")
    ask(farm, f"/api/v1/workers/{worker}/drain", {"drain": False})
    # Those at the head of the line are the oldest; four run at once.
    for job in waiting[:4]:
        expect(page.locator(f"tr:has(a[data-job='{job}'])")).to_contain_text("running")
    ends.touch()
    farm.wait_for(waiting[-1], "succeeded", seconds=120)


def test_a_list_that_stays_open_does_not_keep_all_that_came(watched: Watched, farm: WholeFarm, submit: Submit) -> None:
    page = watched.page
    page.goto(farm.url)
    expect(page.locator("#connection")).to_have_text("live")
    for _ in range(650):
        last = submit(repository="/nowhere/list-many")
    expect(page.locator(f"a[data-job='{last}']")).to_be_visible()
    page.wait_for_function("() => document.querySelectorAll('a[data-job]').length < 600")
    # What it has let go is found where older ones are.
    page.get_by_label("Repository").fill("list-many")
    expect(page).to_have_url(re.compile(r"repository=list-many$"))
    rows, older = page.locator("a[data-job]"), page.get_by_role("button", name="Older jobs")
    while (before := rows.count()) < 650:
        older.click()
        page.wait_for_function("before => document.querySelectorAll('a[data-job]').length > before", arg=before)
    expect(older).to_be_hidden()
    expect(rows).to_have_count(650)


def test_the_form_says_what_the_server_says(watched: Watched, farm: WholeFarm) -> None:
    page = watched.page
    page.goto(f"{farm.url}#/submit")
    build = page.locator("form").get_by_role("button", name="Build")
    page.get_by_label("Repository").fill("ext::sh -c bad")
    build.click()
    expect(page.locator("[data-for=repository]")).not_to_be_empty()
    expect(page.get_by_label("Repository")).to_be_focused()
    page.get_by_label("Repository").fill("/nowhere/formed")
    page.get_by_label("Tags").fill("one, two")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Priority").fill("12")
    build.click()
    expect(page.locator("[data-for=priority]")).not_to_be_empty()
    page.get_by_label("Priority").fill("7")
    page.get_by_label("Labels").fill("team=trees")
    build.click()
    expect(page.locator(".head")).to_contain_text("nowhere/formed")
    page.get_by_text("Attempts and spec").click()
    expect(page.get_by_label("Spec")).to_contain_text('"priority": 7')
    expect(page.get_by_label("Spec")).to_contain_text('"team": "trees"')


def test_the_farm_is_shown_and_can_be_drained(watched: Watched, farm: WholeFarm, submit: Submit) -> None:
    page = watched.page
    job = submit({"step": "1", "name": "one"}, {"seconds": 600}, repository="/nowhere/held")
    page.goto(f"{farm.url}#/farm")
    expect(page.locator(f".tile a[href='#/job/{job}']")).to_be_visible()
    for room in ("Queue", "Broker", "Dispatcher", "Health", "Workers", "Readers"):
        expect(page.locator(".room", has_text=room)).to_be_visible()
    page.get_by_role("button", name="Drain", exact=True).click()
    expect(page.locator(".worker-draining")).to_be_visible()
    expect(page.locator(".events")).to_contain_text("drain")
    page.get_by_role("button", name="Undo drain").click()
    expect(page.locator(".worker-draining")).to_have_count(0)
    expect(page.locator(".events")).to_contain_text("joined")
    expect(page.locator("figure svg[role=img]")).to_have_count(2)
    page.locator(f".tile a[href='#/job/{job}']").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .state")).to_have_text("canceled")


def test_it_can_be_used_by_keys_alone(watched: Watched, farm: WholeFarm, submit: Submit) -> None:
    page = watched.page
    job = submit({"step": "1", "name": "talk", "lines": 3, "line": "key {n}"}, repository="/nowhere/keys")
    page.goto(farm.url)
    expect(page.locator(f"a[data-job='{job}']")).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("first error")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("/")
    expect(page.get_by_label("Text")).to_be_focused()
    page.keyboard.type(job)
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Text").press("Tab")
    page.locator("#main").focus()
    page.keyboard.press("j")
    expect(page.locator(f"a[data-job='{job}']")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".head")).to_contain_text("succeeded")
    page.keyboard.press("t")
    expect(page.locator(".stamp").first).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("f")
    expect(page.locator("h1")).to_have_text("Farm")
    # Whoever dictates switches single keys off.
    page.get_by_role("button", name="Keyboard shortcuts").click()
    page.get_by_label("Single keys do something").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("j")
    expect(page.locator("h1")).to_have_text("Farm")


def test_a_token_is_offered_what_it_may(browser: Browser, farm: WholeFarm, submit: Submit) -> None:
    """Who may only look sees no button that would be refused; a token of some repositories is told which."""
    job = submit({"step": "1", "name": "one", "lines": 1, "line": "here"}, {"seconds": 600}, repository="/nowhere/role")
    ask(farm, "/api/v1/deployments", deployment("role", "print", "here", "listen"))
    buttons = {
        f"#/job/{job}": ("Cancel",),
        "#/jobs?repository=nowhere/role": ("Cancel nowhere/role", "Build"),
        "#/deployment/role": ("Restart", "Stop"),
        "#/farm": ("Drain",),
    }
    tokens = {
        "looker": ({"role": "view"}, ()),
        "builder": ({"role": "submit", "repositories": ["/nowhere/**"]}, ("Cancel", "Cancel nowhere/role", "Build")),
        "boss": ({"role": "admin"}, tuple(name for names in buttons.values() for name in names)),
    }
    for name, (wanted, offered) in tokens.items():
        made = ask(farm, "/api/v1/tokens", {"name": name, **wanted})
        context = browser.new_context()
        context.set_default_timeout(40_000)
        page = context.new_page()
        log_in(page, farm, made["secret"])
        expect(page.locator(".me")).to_have_text(f"{name}{wanted['role']}")
        for place, names in buttons.items():
            if name == "builder" and place == "#/deployment/role":
                # It is of no repository: this token does not know it.
                continue
            page.goto(f"{farm.url}{place}")
            expect(
                page.get_by_text("nowhere/role").or_(page.locator(".row.log")).or_(page.locator(".tile")).first
            ).to_be_visible()
            for each in names:
                button = page.locator("main").get_by_role(
                    "link" if each == "Build" else "button", name=each, exact=True
                )
                expect(button).to_have_count(1 if each in offered else 0)
        page.goto(f"{farm.url}#/submit")
        may = name != "looker"
        expect(page.get_by_text("may look, not build")).to_be_visible(visible=not may)
        expect(page.locator("form.submit")).to_be_visible(visible=may)
        expect(page.get_by_text("Your token is for /nowhere/**")).to_be_visible(visible=name == "builder")
        context.close()
    ask(farm, f"/api/v1/jobs/{job}/cancel", {})
