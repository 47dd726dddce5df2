"""A log of 1 GiB in the viewer: opened at its end and middle, looked through, scrolled about; what the page keeps."""

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from playwright.sync_api import Page

from tests.bench.bench import Bench, NotHere
from tests.bench.figure import Figure, median
from tests.bench.proc import MIB, proportional_mib, tree
from tests.bench.viewer import MOST_MIB, OPEN_SECONDS, command_of, open_page, opened, stamping_farm, submit, wait
from tests.parts.browser import CHROMIUM
from tests.parts.whole_farm import WholeFarm

LINE_BYTES = 1024
PLACES = 20
# To a place of the scroll bar; answers after how many ms nothing in sight is missing.
SCROLLED = """async (share) => {
  const view = document.querySelector('.logview');
  const began = performance.now();
  view.scrollTop = share * (view.scrollHeight - view.clientHeight);
  const frame = () => new Promise(requestAnimationFrame);
  await frame();
  await frame();
  while (document.querySelector('.row.missing')) await frame();
  return performance.now() - began;
}"""

T = TypeVar("T")


def measure(bench: Bench) -> Iterator[Figure]:
    """Playwright has a thread of its own, as in `viewer`."""
    if not os.path.exists(CHROMIUM):
        raise NotHere("there is no chromium")
    with ThreadPoolExecutor(max_workers=1) as thread, stamping_farm(bench) as farm:
        size = bench.size(1024, 16)
        job = _written(farm, size)
        yield from thread.submit(lambda: list(_opened(bench, farm, job, size))).result()
        yield from thread.submit(lambda: list(_read(farm, job, size))).result()


def _written(farm: WholeFarm, size: int) -> str:
    lines = size * MIB // LINE_BYTES
    script = [{"step": "log", "name": "log", "lines": lines, "line": "{n} ".ljust(LINE_BYTES - 8, "x")}]
    job = submit(farm, {"SCRIPT": json.dumps(script)})
    wait(farm, job)
    return job


def _opened(bench: Bench, farm: WholeFarm, job: str, size: int) -> Iterator[Figure]:
    lines = size * MIB // LINE_BYTES
    for name, place, awaited in (
        ("its end", f"/L{lines + 6}", ".row.selected.moved"),
        ("its middle", f"/L{lines // 2}", ".row.selected.log"),
    ):
        found = [opened(farm, f"{farm.url}/#/job/{job}{place}", awaited) for _ in range(bench.size(5, 1))]
        yield Figure(
            row="longlog",
            name=f"a log of {size} MiB opened at {name}, cold page",
            value=median(found),
            unit="s",
            target=f"under {OPEN_SECONDS:.0f} s",
            reached=median(found) < OPEN_SECONDS,
            note=f"{lines:,} lines; slowest of {len(found)}: {max(found):.2f} s",
            details={"seconds": found},
        )


def _read(farm: WholeFarm, job: str, size: int) -> Iterator[Figure]:
    lines = size * MIB // LINE_BYTES
    with open_page(farm) as page:
        pids = [pid for pid in tree(os.getpid()) if "renderer" in command_of(pid)]
        page.goto(f"{farm.url}/#/job/{job}/L{lines // 2}")
        page.wait_for_selector(".row.selected.log")
        memory = [proportional_mib(pids)]
        scrolled = []
        for place in range(PLACES):
            # There and back: what was let go is asked for again.
            scrolled.append(float(page.evaluate(SCROLLED, (place * 7 % PLACES + 0.5) / PLACES)))
            memory.append(proportional_mib(pids))
        searched = _timed(lambda: _search(page, f"{lines - 5} x", "1 of 1"))
        memory.append(proportional_mib(pids))
    yield Figure(
        row="longlog",
        name=f"scrolled to {PLACES} places in it: every row in sight is there, slowest",
        value=max(scrolled),
        unit="ms",
        note=f"median {median(scrolled):.0f} ms",
        details={"ms": scrolled},
    )
    yield Figure(
        row="longlog",
        name="the whole of it looked through for a text that its last lines have",
        value=searched,
        unit="s",
        note=f"{size / searched:.0f} MiB/s, a quarter of a second of it waiting for the typing to end",
    )
    yield Figure(
        row="longlog",
        name="browser memory after all that: largest",
        value=max(memory),
        unit="MiB",
        target=f"at most {MOST_MIB:.0f} MiB",
        reached=max(memory) <= MOST_MIB,
        note="PSS of the renderer",
        details={"mib": memory},
    )


def _search(page: Page, text: str, count: str) -> None:
    page.get_by_label("Search the log").fill(text)
    page.wait_for_function("wanted => document.querySelector('.count').textContent === wanted", arg=count)


def _timed(function: Callable[[], Any]) -> float:
    began = time.monotonic()
    function()
    return time.monotonic() - began
