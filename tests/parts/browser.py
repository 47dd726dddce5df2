"""A real Chromium, headless, driven by Playwright; it speaks to loopback alone."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import pytest
from playwright.sync_api import Browser, Dialog, Error, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
]


def _steadily(go: Callable[..., Any]) -> Callable[..., Any]:
    """Chromium aborts what is under way when a network interface comes or goes, as those of other tests' containers."""

    @wraps(go)
    def gone(page: Page, *args: Any, **options: Any) -> Any:
        for _ in range(20):
            try:
                return go(page, *args, **options)
            except Error as error:
                if "ERR_NETWORK_CHANGED" not in error.message:
                    raise
        return go(page, *args, **options)

    return gone


Page.goto = _steadily(Page.goto)
Page.reload = _steadily(Page.reload)


def come_in(page: Page, address: str, secret: str) -> None:
    """Type the token in at this address; again when the browser dropped the form."""
    for _ in range(20):
        page.goto(address)
        page.fill("input[name=token]", secret)
        page.click("button")
        page.wait_for_function("() => document.querySelector('nav') || !document.querySelector('form')")
        if page.locator("nav").count():
            return
    raise AssertionError("the form never came through")


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Skips where there is no Chromium; in CI that fails."""
    if not os.path.exists(CHROMIUM):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("there is no chromium")
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET, env={**os.environ, "HOME": home})
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page, and whatever it complained about."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.expected: list[str] = []
        """`dialog`: the test answers dialogs itself."""
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("dialog", self._dialog)
        page.on("console", self._console)

    def _dialog(self, dialog: Dialog) -> None:
        if "dialog" not in self.expected:
            self.complaints.append(f"dialog: {dialog.message}")
            dialog.dismiss()

    def _console(self, message: object) -> None:
        text = str(getattr(message, "text", message))
        # A browser says by itself that a farm is away or wants a login: that is what the tests do to it.
        if getattr(message, "type", "") == "error" and "Failed to load" not in text and "WebSocket" not in text:
            self.complaints.append(text)
