"""Whoever hears a page, uses keys alone, has a narrow or a very wide screen: axe over every page, in both schemes."""

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.parts.browser import Watched
from tests.parts.whole_farm import WholeFarm
from tests.viewer.conftest import there
from tests.viewer.demo import furnish

pytestmark = pytest.mark.timeout(180)

RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
}
READY = {
    "jobs": "tbody tr",
    "submit": "form.submit",
    "farm": ".tile",
    "deployments": "tbody tr",
    "deployment": ".card .state",
    "job": ".row.log",
}
# Every page in light and in dark, on a phone and on a wide screen; four of these would find what two do.
LOOKS = [("light", 360, 740), ("dark", 1440, 900)]


@pytest.fixture(scope="module")
def places(farm: WholeFarm) -> dict[str, str]:
    """Addresses of every kind of page, with something on it."""
    made = furnish(farm)
    return {
        "jobs": "#/jobs",
        "submit": "#/submit",
        "farm": "#/farm",
        "deployments": "#/deployments",
        "deployment": f"#/deployment/{made['deployment']}",
        "job": f"#/job/{made['bad']}",
        "job running": f"#/job/{made['running']}",
    }


@pytest.fixture
def looked_at(browser: Browser, session: Any, request: pytest.FixtureRequest) -> Iterator[Watched]:
    scheme, width, height = request.param
    watched = there(_open, browser, session, scheme, width, height)
    yield watched
    there(watched.page.context.close)
    assert watched.complaints == []


def _open(browser: Browser, session: Any, scheme: str, width: int, height: int) -> Watched:
    context = browser.new_context(
        storage_state=session, viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
    )
    context.set_default_timeout(40_000)
    return Watched(context.new_page())


@pytest.mark.parametrize("looked_at", LOOKS, indirect=True, ids=str)
def test_no_page_violates_what_axe_knows(looked_at: Watched, farm: WholeFarm, places: dict[str, str]) -> None:
    page = looked_at.page
    axe = Axe()
    size = page.viewport_size
    assert size is not None
    told = []
    for name, place in places.items():
        page.goto(f"{farm.url}{place}")
        expect(page.locator(READY[name.split()[0]]).first).to_be_visible()
        if name == "job":
            page.get_by_text("Attempts and spec").click()
            page.get_by_label("Search the log").fill("failed")
            expect(page.locator(".row.current mark").first).to_be_visible()
        told += check(axe, page, name)
        assert page.locator("h1").count() == 1
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, name
        page.set_viewport_size({"width": 2560, "height": 1300})
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, name
        page.set_viewport_size(size)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Keyboard shortcuts").click()
    told += check(axe, page, "help")
    assert told == []


def check(axe: Axe, page: Page, name: str) -> list[tuple[str, str, list[str]]]:
    """What is wrong: on which page, which rule, where and why."""
    found = axe.run(page, options=RULES).response["violations"]
    told = [(each["id"], [node for node in each["nodes"] if not excepted(each["id"], node["html"])]) for each in found]
    return [
        (name, rule, [f"{node['html'][:200]} {node['failureSummary'][:300]}" for node in nodes[:3]])
        for rule, nodes in told
        if nodes
    ]


def excepted(rule: str, html: str) -> bool:
    """WCAG 2.2, 2.5.8, "Inline": what folds a step stands in the log, as high as its lines are; axe does not know."""
    return rule == "target-size" and 'class="fold"' in html


def test_focus_is_seen_and_states_are_told(watched: Watched, farm: WholeFarm, places: dict[str, str]) -> None:
    page = watched.page
    page.goto(f"{farm.url}{places['jobs']}")
    expect(page.locator("tbody tr").first).to_be_visible()
    page.keyboard.press("Tab")
    for _ in range(12):
        style, width = page.evaluate("""() => {
            const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
            return [outlineStyle, outlineWidth];
        }""")
        at = page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
        assert at.startswith("<body") or (style, width) == ("solid", "2px"), at
        page.keyboard.press("Tab")
    page.goto(f"{farm.url}{places['job']}")
    expect(page.locator("#announcer")).to_have_text("Job failed")
    expect(page.locator("#connection[role=status]")).to_have_text("live")
