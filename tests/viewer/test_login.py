"""A link to a line, whoever opens it: with a session, without one, by a one-time link, from a page of another site."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.parts.browser import Watched, come_in
from tests.parts.whole_farm import WholeFarm
from tests.viewer.conftest import Submit
from tests.viewer.demo import ask
from tests.viewer.test_access import check

pytestmark = pytest.mark.timeout(180)


def test_a_link_to_a_line_survives_the_login(browser: Browser, farm: WholeFarm, submit: Submit) -> None:
    job = submit({"step": "1", "name": "talk", "lines": 300, "line": "row {n}"})
    farm.wait_for(job, "succeeded")
    place = f"#/job/{job}/L104"
    token = (farm.state / "token").read_text().strip()

    def by_link(page: Page, place: str = "") -> None:
        """It is good once: another one when the browser dropped the answer."""
        while not page.url.startswith(f"{farm.url}/") or "/login" in page.url:
            page.goto(ask(farm, "/api/v1/login-links", {})["url"] + place)

    def shows_it(page: Page) -> None:
        expect(page.locator(".row.selected .text")).to_have_text("row 100")
        assert page.url == f"{farm.url}/{place}"

    # By the form.
    context = browser.new_context()
    context.set_default_timeout(40_000)
    page = context.new_page()
    watched = Watched(page)
    page.goto(f"{farm.url}/{place}")
    assert check(Axe(), page, "login") == []
    come_in(page, f"{farm.url}/{place}", token)
    shows_it(page)
    # From a page of another site: the browser shows no cookie there, and asks nobody to log in again.
    page.route("http://elsewhere.test/", lambda route: route.fulfill(body=f"<a href='{farm.url}/{place}'>a line</a>"))
    page.goto("http://elsewhere.test/")
    page.get_by_role("link", name="a line").click()
    shows_it(page)
    assert watched.complaints == []
    context.close()
    # By a one-time link in another tab, and by one that names the line itself.
    context = browser.new_context()
    context.set_default_timeout(40_000)
    lost, other = context.new_page(), context.new_page()
    lost.goto(f"{farm.url}/{place}")
    expect(lost.get_by_label("Token")).to_be_visible()
    by_link(other)
    shows_it(other)
    # It was for that one time.
    other.goto("about:blank")
    other.goto(farm.url)
    expect(other.locator("h1")).to_have_text("Jobs")
    context.close()
    context = browser.new_context()
    context.set_default_timeout(40_000)
    page = context.new_page()
    by_link(page, place)
    shows_it(page)
    context.close()
