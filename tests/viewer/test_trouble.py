"""What goes wrong around a reader: a restart, a flood, a second tab, a revoked token, and texts that mean harm."""

import re
import urllib.request

import pytest
from playwright.sync_api import Browser, Page, Route, WebSocketRoute, expect

from tests.parts.browser import Watched, come_in
from tests.parts.whole_farm import WholeFarm
from tests.viewer.conftest import Submit, send
from tests.viewer.demo import ask, deployment
from tests.viewer.test_log import last_row, shown

pytestmark = pytest.mark.timeout(180)

HOSTILE = "<img src=x onerror=alert(1)> \u202eevil\u202c <script>alert(2)</script>\u200f"


def test_what_comes_from_outside_stays_text(watched: Watched, farm: WholeFarm, submit: Submit) -> None:
    page = watched.page
    job = submit(
        {"step": "1", "name": HOSTILE},
        {"lines": 1, "line": HOSTILE},
        {"lines": 1, "line": "\x1b[31mred\x1b[0m \x1b]0;title\x07plain \x1b[2Jgone \x07bell"},
        {
            "lines": 1,
            "line": "\x1b[38;2;250;20;20;1mrich\x1b[0m \x1b[48;5;2mground\x1b[m \x1bP1$tdcs\x1b\\end 10%\r100%",
        },
        {"bytes_base64": "AP8gYmFkIIAgYnl0ZXMKCA=="},
        {"notice": ["odd", HOSTILE]},
        {"exit": 1},
        ref=HOSTILE.replace("\u202e", "").replace("\u202c", "").replace("\u200f", ""),
        labels={HOSTILE: HOSTILE},
        build_args={"<b>ARG</b>": "<i>\u202evalue</i>"},
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
    rich = page.locator(".row.log").nth(2)
    expect(rich.locator(".text")).to_have_text("100%")
    expect(page.locator(".row.log").nth(3)).to_contain_text("⟨0000⟩� bad � bytes")
    expect(page.locator(".trouble")).to_contain_text("⟨200F⟩")
    page.get_by_label("Search the log").fill("<img")
    expect(page.locator(".row.current mark").first).to_have_text("<img")
    page.get_by_text("Attempts and spec").click()
    expect(page.get_by_label("Spec")).to_contain_text("<i>⟨202E⟩value</i>")
    assert page.locator("main img, main script, main b, main i").count() == 0
    assert "evil" not in page.title()
    # Names and images have grammars: what does not fit them never comes in.
    for body in (deployment(HOSTILE), deployment("fine") | {"image": HOSTILE}):
        with pytest.raises(urllib.error.HTTPError):
            ask(farm, "/api/v1/deployments", body)
    # A filter that was lured into the address is text, too.
    page.goto(f"{farm.url}#/jobs?pool=%3Cimg%20src%3Dx%3E&text=%3Cscript%3E&state=%3Cb%3E")
    expect(page.locator("h1")).to_have_text("Jobs")
    page.goto(f"{farm.url}#/job/%3Cimg%20src=x%20onerror=alert(1)%3E%E0%A4%A")
    expect(page.locator("h1")).to_have_text("No such job")
    assert page.locator("main img").count() == 0


def test_a_flood_does_not_disturb_a_reader(watched: Watched, farm: WholeFarm, submit: Submit) -> None:
    """100,000 lines in ten seconds, while somebody reads what came before and another one follows."""
    page = watched.page
    burst = ({"seconds": 0.1, "lines": 1000, "line": "flood {n}"} for _ in range(100))
    job = submit(
        {"step": "0", "name": "calm", "lines": 300, "line": "calm {n}"}, {"step": "1", "name": "flood"}, *burst
    )
    page.goto(f"{farm.url}#/job/{job}/L100")
    expect(page.locator(".row.selected")).to_contain_text("calm")
    second = page.context.new_page()
    other = Watched(second)
    second.goto(f"{farm.url}#/job/{job}")
    expect(second.locator(".row.log").last).to_be_visible()
    still = shown(page)
    resume = page.get_by_role("button", name=re.compile("^Follow"))
    expect(resume).to_have_text(re.compile(r"\d\d,\d{3} new"))
    assert shown(page) == still
    expect(page.locator(".row.missing")).to_have_count(0)
    # In the midst of it the page answers: somebody goes on reading.
    page.locator(".logview").focus()
    page.keyboard.press("PageDown")
    page.wait_for_function("before => Number(document.querySelector('.row').dataset.seq) > before", arg=still[0])
    farm.wait_for(job, "succeeded", seconds=60)
    end = 4 + 300 + 1 + 1 + 100_000 + 2
    for each in (page, second):
        each.bring_to_front()
        each.locator(".logview").focus()
        each.keyboard.press("End")
        expect(each.locator(".head .state")).to_have_text("succeeded")
        expect(each.locator(f".row[data-seq='{end}']")).to_contain_text("succeeded")
        expect(each.locator(".row.log .text").last).to_have_text("flood 1000")
    assert other.complaints == []
    second.close()


def test_two_tabs_show_the_same_and_neither_stops_the_other(watched: Watched, farm: WholeFarm, submit: Submit) -> None:
    page = watched.page
    talk = ({"seconds": 0.1, "lines": 3, "line": "both {n}"} for _ in range(3000))
    job = submit({"step": "1", "name": "talk"}, *talk, repository="/nowhere/tabs")
    second = page.context.new_page()
    for each in (page, second):
        each.goto(f"{farm.url}#/job/{job}")
        expect(each.locator(".row.log").last).to_be_visible()
    second.close()
    seen = last_row(page)
    page.wait_for_function("before => Number(document.querySelector('.row:last-child').dataset.seq) > before", arg=seen)
    third = page.context.new_page()
    third.goto(f"{farm.url}#/jobs?repository=tabs")
    expect(third.locator(f"tr:has(a[data-job='{job}'])")).to_contain_text("running")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .state")).to_have_text("canceled")
    expect(third.locator(f"tr:has(a[data-job='{job}'])")).to_contain_text("canceled")
    third.close()


def test_it_goes_on_after_a_restart_of_the_farm(watched: Watched, farm: WholeFarm) -> None:
    page = watched.page
    steps = [{"step": "1", "name": "talk"}, *({"seconds": 0.2, "lines": 5, "line": "word {n}"} for _ in range(3000))]
    job = send(farm, *steps)
    page.goto(f"{farm.url}#/job/{job}")
    expect(page.locator(".row.log").last).to_be_visible()
    lists = page.context.new_page()
    lists.goto(f"{farm.url}#/jobs")
    expect(lists.locator(f"a[data-job='{job}']")).to_be_visible()
    address = farm.url.removeprefix("http://")
    farm.stop()
    expect(page.locator("#connection")).to_have_text(re.compile("lost"))
    farm.start("--slots", "4", listen=address)
    expect(page.locator("#connection")).to_have_text("live")
    expect(page.get_by_text(re.compile("nothing is missing"))).to_be_visible()
    expect(page.locator(".facts div", has_text="Attempts").locator("dd")).to_have_text("2")
    expect(page.locator(".row.log").last).to_be_visible()
    numbers = shown(page)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    expect(lists.locator("#connection")).to_have_text("live")
    expect(lists.locator(f"tr:has(a[data-job='{job}'])")).to_contain_text("running")
    lists.close()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .state")).to_have_text("canceled")


def test_a_token_that_is_taken_away_ends_the_session(browser: Browser, farm: WholeFarm, submit: Submit) -> None:
    """An open page says so by itself, offers the login, and comes back to where it was."""
    job = submit({"step": "1", "name": "talk", "lines": 1, "line": "here"}, {"seconds": 600})
    made = ask(farm, "/api/v1/tokens", {"name": "reader", "role": "view"})
    context = browser.new_context()
    context.set_default_timeout(40_000)
    page = context.new_page()
    watched = Watched(page)
    log_in(page, farm, made["secret"])
    page.goto(f"{farm.url}#/job/{job}")
    expect(page.locator(".row.log")).to_contain_text("here")
    ask(farm, f"/api/v1/tokens/{made['token']['id']}", method="DELETE")
    expect(page.get_by_role("alert")).to_contain_text("session has ended")
    expect(page.locator("#connection")).to_have_text("logged out")
    again = page.get_by_role("link", name="Log in again").get_attribute("href")
    come_in(page, f"{farm.url}{again}", (farm.state / "token").read_text().strip())
    expect(page.locator(".row.log")).to_contain_text("here")
    expect(page).to_have_url(re.compile(f"#/job/{job}$"))
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .state")).to_have_text("canceled")
    assert watched.complaints == []
    context.close()


def test_what_the_browser_drops_is_asked_for_again(watched: Watched, farm: WholeFarm, submit: Submit) -> None:
    """A browser aborts what is under way when a network interface comes or goes, and says so to nobody but the page."""
    page = watched.page
    job = submit({"step": "1", "name": "talk", "lines": 1, "line": "here"}, {"seconds": 600})
    dropped: list[str] = []

    def drop(route: Route) -> None:
        if sum(each == route.request.url for each in dropped) == 2:
            route.continue_()
            return
        dropped.append(route.request.url)
        route.abort("connectionreset")

    for part in ("**/viewer/*/log.js", "**/viewer/*/log.css", "**/events?*", "**/outline*"):
        page.route(part, drop)
    page.goto(f"{farm.url}#/job/{job}")
    expect(page.locator(".row.log")).to_contain_text("here")
    assert {each.partition("?")[0].rpartition("/")[2] for each in dropped} >= {"log.js", "log.css", "events"}
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .state")).to_have_text("canceled")
    # What does not come at all is said.
    page.unroute_all()
    page.route("**/viewer/*/log.js", lambda route: route.abort())
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("did not come whole", timeout=80_000)
    page.unroute_all()
    page.get_by_role("link", name="Load it again").click()
    expect(page.locator(".row.log")).to_contain_text("here")


def test_a_reader_on_the_way_to_another_page_gets_there(watched: Watched, farm: WholeFarm, submit: Submit) -> None:
    """The list that is left takes back neither the address nor the page, whenever its first answer comes."""
    page = watched.page
    job = submit({"step": "1", "name": "talk", "lines": 1, "line": "here"})
    farm.wait_for(job, "succeeded")
    held: list[tuple[WebSocketRoute, str | bytes]] = []

    def meet(there: WebSocketRoute) -> None:
        server = there.connect_to_server()
        # The answer to the first call, which is the list's, waits until the list is gone.
        first = '{"jsonrpc":"2.0","id":1,'
        server.on_message(lambda said: held.append((there, said)) if str(said).startswith(first) else there.send(said))

    page.route_web_socket("**/ws", meet)
    page.goto(farm.url)
    expect(page.locator("#connection")).to_have_text("live")
    page.evaluate("address => { location.hash = address }", f"#/job/{job}")
    expect(page.locator(".row.log")).to_contain_text("here")
    while not held:
        page.wait_for_timeout(20)
    ((there, said),) = held
    there.send(said)
    # Behind the held answer on the same connection.
    page.get_by_role("button", name="Again").click()
    page.wait_for_function("before => !location.hash.endsWith(before)", arg=job)
    page.go_back()
    expect(page).to_have_url(re.compile(f"#/job/{job}$"))


def log_in(page: Page, farm: WholeFarm, secret: str) -> None:
    come_in(page, farm.url, secret)
    expect(page.locator("#connection")).to_have_text("live")
