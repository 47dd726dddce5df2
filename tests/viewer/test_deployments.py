"""What is kept running: its versions, its replicas, what it prints; stopped, started, rolled back."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.parts.browser import Watched
from tests.parts.whole_farm import WholeFarm
from tests.viewer.demo import ask, deployment

pytestmark = pytest.mark.timeout(180)


def test_a_deployment_is_shown_and_steered(watched: Watched, farm: WholeFarm) -> None:
    page = watched.page
    ask(farm, "/api/v1/deployments", deployment("shown", "print", "one speaks", "listen", replicas=2))
    page.goto(f"{farm.url}#/deployments")
    row = page.locator("tr:has(a[href='#/deployment/shown'])")
    expect(row).to_contain_text("running")
    expect(row).to_contain_text("2 of 2 healthy")
    row.get_by_role("link").click()
    expect(page.locator(".row.log", has_text="one speaks")).to_have_count(2)
    expect(page.locator(".replica-healthy")).to_have_count(2)
    # A second version comes live; the first can be gone back to.
    ask(farm, "/api/v1/deployments", deployment("shown", "print", "<b>two</b> speaks", "listen"))
    expect(page.locator(".head")).to_contain_text("version 2")
    expect(page.locator(".row.log", has_text="<b>two</b> speaks")).to_have_count(1)
    expect(page.locator(".replica-healthy")).to_have_count(1)
    page.get_by_role("button", name="Roll back to version 1").click()
    expect(page.locator(".head")).to_contain_text("version 3")
    expect(page.get_by_text("like version 1").first).to_be_visible()
    page.get_by_role("button", name="Restart").click()
    expect(page.locator(".row.log", has_text="one speaks")).to_have_count(6)
    numbers = page.evaluate("() => [...document.querySelectorAll('.row')].map((row) => Number(row.dataset.seq))")
    assert numbers == list(range(1, len(numbers) + 1))
    page.on("dialog", lambda dialog: dialog.accept())
    watched.expected.append("dialog")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".head .state")).to_have_text("stopped")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator(".head .state")).to_have_text("running")
    # A link to a line opens there.
    page.locator(".row .number").nth(2).click()
    expect(page).to_have_url(re.compile("#/deployment/shown/L3$"))
    page.reload()
    expect(page.locator(".row.selected")).to_have_count(1)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert "one speaks" in download.value.path().read_text()


def said_by_both(page: Page, name: str, text: str) -> None:
    """The farm has it from both replicas; the page need not have it in sight."""
    page.wait_for_function(
        """async ([name, text]) => {
            const answer = await fetch(`/api/v1/deployments/${name}/log`);
            return (await answer.text()).split(text).length === 3;
        }""",
        arg=[name, text],
        polling=200,
    )


def test_its_log_is_searched_on_the_server_and_shown_by_version_and_replica(watched: Watched, farm: WholeFarm) -> None:
    page = watched.page
    words = [part for number in range(1, 61) for part in ("print", f"talk {number}")]
    ask(farm, "/api/v1/deployments", deployment("asked", *words, "print", "an Error here", "listen", replicas=2))
    page.goto(f"{farm.url}#/deployment/asked")
    expect(page.locator(".row.log").first).to_be_visible()
    said_by_both(page, "asked", "an Error here")
    # Hits are counted and stepped through, also those that have scrolled by; what comes is looked through, too.
    page.get_by_label("Search the log").fill("TALK 7")
    expect(page.locator(".count")).to_have_text("1 of 2")
    expect(page.locator(".row.current mark")).to_have_text("talk 7")
    ask(farm, "/api/v1/deployments", deployment("asked", "print", "talk 7 again", "listen", replicas=2))
    expect(page.locator(".count")).to_have_text("1 of 4")
    page.get_by_role("button", name="Previous hit").click()
    expect(page.locator(".count")).to_have_text("4 of 4")
    expect(page.locator(".row.current")).to_contain_text("talk 7 again")
    expect(page.locator(".row.log", has_text="talk 7 again").locator(".tag").last).to_have_text(re.compile("^v2 #"))
    page.get_by_role("button", name="First error").click()
    expect(page.locator(".row.current")).to_contain_text("an Error here")
    # One version alone, one replica alone; what was asked is asked of them.
    page.get_by_label("Search the log").fill("talk 7")
    expect(page.locator(".count")).to_have_text("1 of 4")
    page.get_by_label("Whose lines").select_option("Version 2")
    expect(page.locator(".count")).to_have_text("1 of 2")
    expect(page.locator(".row.log")).to_have_count(2)
    page.get_by_label("Whose lines").select_option("Version 1, replica 1")
    expect(page.locator(".count")).to_have_text("1 of 1")
    expect(page.locator(".row.log .tag", has_text=re.compile("^v1 #1$")).first).to_be_visible()
    expect(page.locator(".row.log .tag", has_text=re.compile("#0$"))).to_have_count(0)
    # A link to a line of another one brings everything back.
    page.get_by_label("Whose lines").select_option("Version 2")
    expect(page.locator(".row.log")).to_have_count(2)
    page.evaluate("location.hash = '#/deployment/asked/L9-10'")
    expect(page.locator(".row.selected.log")).to_have_count(2)
    expect(page.get_by_label("Whose lines")).to_have_value("")


def test_one_that_fails_says_why(watched: Watched, farm: WholeFarm) -> None:
    page = watched.page
    body = deployment("broken", "print", "cannot find it", "exit", "3")
    body["run"]["restart"] = {"on_exit": "never"}
    ask(farm, "/api/v1/deployments", body)
    page.goto(f"{farm.url}#/deployment/broken")
    expect(page.locator(".card .state.failed")).to_be_visible()
    expect(page.locator(".card .note.bad").first).not_to_be_empty()
    expect(page.locator(".card pre")).to_contain_text("cannot find it")
    page.goto(f"{farm.url}#/deployment/no-such")
    expect(page.locator("h1")).to_have_text("No such deployment")
    expect(page.locator(".head .state")).to_have_count(0)
    page.get_by_role("link", name="All deployments").click()
    expect(page.locator("tr:has(a[href='#/deployment/broken'])")).to_contain_text(re.compile("failed"))
