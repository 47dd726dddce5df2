"""One browser and one farm for all tests of the viewer.

Playwright keeps an asyncio loop in the thread that uses it, and Trio refuses to run beside one: so the browser, and
the tests that use it, have a thread of their own.
"""

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest
from playwright.sync_api import Browser, expect

from tests.parts.browser import Watched, come_in, open_browser
from tests.parts.ports import free_port
from tests.parts.whole_farm import WholeFarm, open_whole_farm

# For every test of this folder, whichever of its fixtures come first.
expect.set_options(timeout=40_000)

Submit = Callable[..., str]
T = TypeVar("T")
P = ParamSpec("P")

_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="browser")


def there(function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Call it in the browser's thread."""
    return _THREAD.submit(function, *args, **options).result()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    """Each test of this room runs there."""
    there(pyfuncitem.obj, **{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames})
    return True


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    stack = ExitStack()
    # Another test of this process may have imported trio-asyncio, whose loops turn on Trio alone.
    there(asyncio.set_event_loop_policy, asyncio.DefaultEventLoopPolicy())
    yield there(stack.enter_context, open_browser())
    there(stack.close)


@pytest.fixture(scope="package")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeFarm]:
    with open_whole_farm(tmp_path_factory.mktemp("viewer")) as farm:
        # At a port that it can have again: browsers knock at it while it is away.
        farm.start("--slots", "4", listen=f"127.0.0.1:{free_port()}")
        yield farm
        farm.stop()


@pytest.fixture(scope="package")
def session(browser: Browser, farm: WholeFarm) -> Any:
    """The cookie of a login."""
    return there(_log_in, browser, farm)


def _log_in(browser: Browser, farm: WholeFarm) -> Any:
    context = browser.new_context()
    context.set_default_timeout(40_000)
    page = context.new_page()
    come_in(page, farm.url, (farm.state / "token").read_text().strip())
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def watched(browser: Browser, session: Any) -> Iterator[Watched]:
    """A page that is logged in; at the end nothing may have gone wrong in it."""
    watched = there(_open, browser, session)
    yield watched
    there(watched.page.context.close)
    assert watched.complaints == []


def _open(browser: Browser, session: Any) -> Watched:
    context = browser.new_context(
        storage_state=session,
        viewport={"width": 1200, "height": 800},
        permissions=["clipboard-read", "clipboard-write"],
    )
    context.set_default_timeout(40_000)
    return Watched(context.new_page())


@pytest.fixture(scope="package")
def submit(farm: WholeFarm) -> Submit:
    return lambda *actions, **spec: send(farm, *actions, **spec)


def send(farm: WholeFarm, *actions: dict[str, Any], **spec: Any) -> str:
    """Submit a job whose build follows this script; answers its id."""
    arguments = {"SCRIPT": json.dumps(list(actions))} | spec.pop("build_args", {})
    body = {"repository": "/nowhere/app", "build_args": arguments} | spec
    token = Path(farm.state, "token").read_text().strip()
    request = urllib.request.Request(
        f"{farm.url}/api/v1/jobs",
        json.dumps(body).encode(),
        {"authorization": f"Bearer {token}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=40) as answer:
        return str(json.load(answer)["id"])
