"""A real Chromium, headless, driven by Playwright; it speaks to loopback alone."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Dialog, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
]


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
