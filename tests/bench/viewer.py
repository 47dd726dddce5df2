"""The viewer in a real Chromium: a line printed in a container until it is painted, long logs opened, memory kept."""

import json
import os
import statistics
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from playwright.sync_api import Page

from tests.bench.bench import ROOT, Bench, NotHere
from tests.bench.building import BuildingFarm, Repository, open_building_farm
from tests.bench.figure import Figure, median, percentile
from tests.bench.proc import cpu_seconds, proportional_mib, tree
from tests.bench.stamping import NAME, installed
from tests.parts.browser import CHROMIUM, come_in, open_browser
from tests.parts.whole_farm import WholeFarm, open_whole_farm

RATE = 1000
P99_MS, OPEN_SECONDS, GROWTH, MOST_MIB = 300.0, 1.0, 1.25, 400.0
LONG = 1_000_000
# A busybox shell knows no time finer than a second but this file's: hundredths since the machine's start.
# Counted by that clock, so that the pace is kept however slow the shell is.
PRINT = (
    "read up idle < /proc/uptime; from=${up%.*}${up#*.}; n=0; while [ $n -lt COUNT ]; do "
    "read up idle < /proc/uptime; due=$(( (${up%.*}${up#*.} - from) * RATE / 100 )); "
    'while [ $n -lt $due ]; do echo "@$up@ FILL"; n=$((n+1)); done; sleep 0.01; done'
)
# After each frame: the last number that is painted, and when.
FRAMES = """() => {
  window.frames_seen = [];
  const look = () => {
    const last = Number(document.querySelector('.row:last-child')?.dataset.seq ?? 0);
    const channel = new MessageChannel();
    channel.port1.onmessage = () => {
      const seen = window.frames_seen;
      const now = performance.timeOrigin + performance.now();
      if (last && (!seen.length || seen.at(-1)[0] < last)) seen.push([last, now]);
    };
    channel.port2.postMessage(0);
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}"""
# From the beginning of the navigation to the first frame that shows what was asked for.
OPENED = """() => {
  const look = () => {
    const row = document.querySelector(window.awaited);
    if (row) setTimeout(() => { window.opened_after ??= performance.now(); });
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}"""

T = TypeVar("T")


def measure(bench: Bench) -> Iterator[Figure]:
    """Playwright has a thread of its own: its loop and Trio's do not go together."""
    if not os.path.exists(CHROMIUM):
        raise NotHere("there is no chromium")
    with ThreadPoolExecutor(max_workers=1) as thread:

        def there(function: Callable[..., T], *args: Any) -> T:
            return thread.submit(function, *args).result()

        yield from there(lambda: list(_painted(bench)))
        with stamping_farm(bench) as farm:
            yield from there(lambda: list(_opened(bench, farm)))
            yield from there(lambda: list(_followed(bench, farm)))


def _painted(bench: Bench) -> Iterator[Figure]:
    with open_building_farm(bench) as farm, open_page(farm.farm) as page:
        seconds = bench.size(20, 4)
        said = PRINT.replace("COUNT", str(seconds * RATE)).replace("RATE", str(RATE)).replace("FILL", "x" * 60)
        dockerfile = f"FROM {farm.base}\nRUN {said}\n"
        repository = Repository(bench.new_directory("viewer") / "app", {"Dockerfile": dockerfile.encode()})
        job = _job(farm, repository)
        page.goto(f"{farm.farm.url}/#/job/{job}")
        page.locator(".logview").wait_for()
        page.evaluate(FRAMES)
        page.wait_for_function(
            "() => /succeeded|failed/.test(document.querySelector('.head .state').textContent)", timeout=120_000
        )
        page.wait_for_timeout(500)
        frames = page.evaluate("window.frames_seen")
        waits, rate = _waits(farm, job, frames)
    for part, name in ((0.5, "p50"), (0.99, "p99")):
        yield Figure(
            row="viewer",
            name=f"line printed in a container to painted in Chromium, {RATE} lines/s: {name}",
            value=percentile(waits, part),
            unit="ms",
            target=f"under {P99_MS:.0f} ms" if name == "p99" else "",
            reached=percentile(waits, part) < P99_MS if name == "p99" else None,
            note=f"{len(waits)} lines at {rate:.0f}/s in {len(frames)} frames; stamps are hundredths of a second",
            details={"largest_ms": max(waits)},
        )


def _job(farm: BuildingFarm, repository: Repository) -> str:
    return str(_ask(farm.farm, "/api/v1/jobs", farm.spec(repository, no_cache=True))["id"])


def _waits(farm: BuildingFarm, job: str, frames: list[list[float]]) -> tuple[list[float], float]:
    """For each line how long it took to the first frame that showed it or a later one, ms; and lines a second."""
    booted = time.time() - float(Path("/proc/uptime").read_text().split()[0])
    waits: list[float] = []
    stamps: list[float] = []
    seq, at = 1, 0
    while events := _ask(farm.farm, f"/api/v1/jobs/{job}/events?from_seq={seq}&limit=5000")["events"]:
        for event in events:
            if event["type"] != "log" or not event["line"].startswith("@"):
                continue
            printed = booted + float(event["line"].split("@")[1])
            while at < len(frames) and frames[at][0] < event["seq"]:
                at += 1
            if at < len(frames):
                stamps.append(printed)
                waits.append(max(0.0, frames[at][1] - 1000 * printed))
        seq = events[-1]["seq"] + 1
    if len(waits) < RATE:
        raise RuntimeError(f"only {len(waits)} lines were painted")
    return waits, (len(stamps) - 1) / (stamps[-1] - stamps[0])


def _opened(bench: Bench, farm: WholeFarm) -> Iterator[Figure]:
    lines = bench.size(LONG, 100_000)
    script = [{"step": "long", "name": "long", "lines": lines, "line": "line {n} of a long log, as long as most are"}]
    job = submit(farm, {"SCRIPT": json.dumps(script)})
    wait(farm, job)
    size = len(f"line {lines} of a long log, as long as most are\n") * lines
    for name, place, awaited in (
        # Behind the lines: the step's end and the job's.
        ("its end", f"/L{lines + 6}", ".row.selected.moved"),
        ("its middle", f"/L{lines // 2}", ".row.selected.log"),
    ):
        found = []
        for _ in range(bench.size(7, 3)):
            found.append(opened(farm, f"{farm.url}/#/job/{job}{place}", awaited))
        yield Figure(
            row="viewer",
            name=f"a log of {lines:,} lines opened at {name}, cold page",
            value=median(found),
            unit="s",
            target=f"under {OPEN_SECONDS:.0f} s",
            reached=median(found) < OPEN_SECONDS,
            note=f"{size / 1e6:.0f} MB of text; slowest of {len(found)}: {max(found):.2f} s",
            details={"seconds": found},
        )


def opened(farm: WholeFarm, address: str, awaited: str) -> float:
    """Seconds from the navigation of a new browser to the frame that shows what this selector is of."""
    with open_page(farm) as page:
        page.goto("about:blank")
        page.add_init_script(f"window.awaited = {json.dumps(awaited)}; ({OPENED})()")
        page.goto(address)
        page.wait_for_function("() => window.opened_after", timeout=60_000)
        return float(page.evaluate("window.opened_after")) / 1000


def _followed(bench: Bench, farm: WholeFarm) -> Iterator[Figure]:
    minutes = bench.minutes
    seconds = minutes * 60
    job = submit(farm, {"STAMPS": json.dumps([RATE, int(RATE * (seconds + 20)), 100])})
    with open_page(farm) as page:
        pids = [pid for pid in tree(os.getpid()) if "renderer" in command_of(pid)]
        page.goto(f"{farm.url}/#/job/{job}")
        page.locator(".row.log").last.wait_for()
        metrics = page.context.new_cdp_session(page)
        metrics.send("Performance.enable")
        memory, heap, began = [], [], time.monotonic()
        used = cpu_seconds(*pids)
        while time.monotonic() - began < seconds:
            page.wait_for_timeout(min(5000.0, seconds * 100))
            memory.append(proportional_mib(pids))
            values = {each["name"]: each["value"] for each in metrics.send("Performance.getMetrics")["metrics"]}
            heap.append(values["JSHeapUsedSize"] / (1 << 20))
        used = (cpu_seconds(*pids) - used) / (time.monotonic() - began)
        last = int(page.locator(".row").last.get_attribute("data-seq") or 0)
    _ask(farm, f"/api/v1/jobs/{job}/cancel", {})
    quarter = max(1, len(memory) // 4)
    early, late = statistics.mean(memory[quarter : 2 * quarter] or memory), statistics.mean(memory[-quarter:])
    yield Figure(
        row="viewer",
        name=f"browser memory, following {RATE} lines/s for {minutes:g} minutes: largest",
        value=max(memory),
        unit="MiB",
        target=f"at most {MOST_MIB:.0f} MiB, last quarter under {GROWTH} of the second",
        reached=max(memory) <= MOST_MIB and late < GROWTH * early,
        note=f"PSS of the renderer: {early:.0f} MiB in the second quarter, {late:.0f} MiB in the last; "
        f"script heap at most {max(heap):.0f} MiB; {last:,} lines; {100 * used:.0f} % of a CPU",
        details={"mib": memory, "heap_mib": heap},
    )


@contextmanager
def stamping_farm(bench: Bench) -> Iterator[WholeFarm]:
    """A farm whose builds can stamp their lines."""
    home = bench.new_directory("viewer")
    path = os.pathsep.join([str(installed(home / "provider")), str(ROOT)])
    with open_whole_farm(home, PYTHONPATH=path, BLACKTREE_WORKER_PROVIDER=NAME) as farm:
        farm.start("--slots", "2")
        yield farm
        farm.stop()


@contextmanager
def open_page(farm: WholeFarm) -> Iterator[Page]:
    """A page of a new browser, logged in."""
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(60_000)
        come_in(page, f"{farm.url}/login", (farm.state / "token").read_text().strip())
        yield page


def command_of(pid: int) -> str:
    """What a process was started with; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def submit(farm: WholeFarm, arguments: dict[str, str]) -> str:
    """Submit a job with these build arguments; answers its id."""
    body = {"repository": "https://git.example/app.git", "build_args": arguments}
    return str(_ask(farm, "/api/v1/jobs", body)["id"])


def wait(farm: WholeFarm, job: str) -> None:
    """Until it has succeeded. Raises RuntimeError when it ends otherwise."""
    while (state := _ask(farm, f"/api/v1/jobs/{job}")["state"]) != "succeeded":
        if state not in ("queued", "assigned", "running"):
            raise RuntimeError(f"the build ended {state}")
        time.sleep(0.3)


def _ask(farm: WholeFarm, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {(farm.state / 'token').read_text().strip()}"}
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    with urllib.request.urlopen(urllib.request.Request(f"{farm.url}{path}", data, headers), timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return found
