"""The pages around a job's: the list, the form, the farm; as a person uses them."""

from playwright.sync_api import Browser, expect

from tests.parts.browser import Watched
from tests.parts.whole_farm import WholeFarm
from tests.viewer.conftest import Submit


def test_a_wrong_token_does_not_come_in(browser: Browser, farm: WholeFarm) -> None:
    page = browser.new_page()
    page.goto(farm.url)
    page.fill("input[name=token]", "wrong")
    page.click("button")
    expect(page.get_by_text("That did not work")).to_be_visible()
    assert page.request.get(f"{farm.url}/viewer/viewer.js").status == 401
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
    page.get_by_label("Text").fill("LIST-GOOD")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.locator(f"a[data-job='{good}']").click()
    expect(page.locator(".head")).to_contain_text("succeeded")


def test_the_form_says_what_the_server_says(watched: Watched, farm: WholeFarm) -> None:
    page = watched.page
    page.goto(f"{farm.url}#/submit")
    page.get_by_label("Repository").fill("ext::sh -c bad")
    page.get_by_role("button", name="Build").click()
    expect(page.locator("[data-for=repository]")).not_to_be_empty()
    page.get_by_label("Repository").fill("/nowhere/formed")
    page.get_by_label("Tags").fill("one, two")
    page.get_by_label("Priority").fill("12")
    page.get_by_role("button", name="Build").click()
    expect(page.locator("[data-for=priority]")).not_to_be_empty()
    page.get_by_label("Priority").fill("7")
    page.get_by_role("button", name="Build").click()
    expect(page.locator(".head")).to_contain_text("nowhere/formed")
    page.get_by_text("Attempts and spec").click()
    expect(page.locator("pre")).to_contain_text('"priority": 7')


def test_the_farm_is_shown_and_can_be_drained(watched: Watched, farm: WholeFarm, submit: Submit) -> None:
    page = watched.page
    job = submit({"step": "1", "name": "one"}, {"seconds": 3, "lines": 1})
    page.goto(f"{farm.url}#/farm")
    expect(page.locator(f"td a[href='#/job/{job}']")).to_be_visible()
    page.get_by_role("button", name="Drain").click()
    expect(page.locator(".worker-draining")).to_be_visible()
    expect(page.locator(".events")).to_contain_text("drain")
    page.get_by_role("button", name="Undo drain").click()
    expect(page.locator(".worker-draining")).to_have_count(0)
    expect(page.locator(".events")).to_contain_text("joined")
    expect(page.locator("figure")).to_have_count(2)


def test_everything_has_a_name_and_fits_a_phone(watched: Watched, farm: WholeFarm, submit: Submit) -> None:
    """What a screen reader and a narrow screen need: names, landmarks, no sideways scrolling of the page."""
    page = watched.page
    page.set_viewport_size({"width": 380, "height": 700})
    job = submit({"step": "1", "name": "a step"}, {"lines": 30, "line": "x" * 300})
    for place in ("jobs", "farm", "submit", f"job/{job}"):
        page.goto(f"{farm.url}#/{place}")
        expect(page.locator("main > *").first).to_be_visible()
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, a, input, select, textarea")]
                .filter((node) => !node.hidden && !(node.textContent.trim() || node.ariaLabel || node.labels?.length))
                .map((node) => node.outerHTML)"""
        )
        assert nameless == [], place
        assert page.locator("h1").count() == 1
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, place
