"""The live picture of a job on a terminal: steps with their times, the last lines, then how it ended."""

import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from blacktree.cli.wording import Event, ending, progress_text, seconds, shown, state_text
from blacktree.client import Batch

LINES = 8
STEPS = 12


class Step:
    """A step as far as it got."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.began = time.monotonic()
        self.took: float | None = None
        self.cached = False
        self.ok = True
        self.progress = ""


class LivePrinter:
    """Redraws a small area at the bottom; finished steps move up into the scrollback for good."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._steps: dict[str, Step] = {}
        self._lines: deque[tuple[str, str]] = deque(maxlen=LINES)
        self._state = "queued"
        self._spinner = Spinner("dots")
        self._began = time.monotonic()
        # Last: it draws at once, and then eight times a second from a thread of its own.
        self._live = Live(console=self._console, get_renderable=self._picture, refresh_per_second=8, transient=True)

    def __enter__(self) -> "LivePrinter":
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def begin(self, job_id: str) -> None:
        self._console.print(Text(f"job {job_id}", style="bold"))

    def know(self, steps: Iterable[Mapping[str, Any]]) -> None:
        """It follows from the first event on."""

    def event(self, event: Event) -> None:
        match event["type"]:
            case "log":
                line = shown(event["line"], terminal=True)
                if line.strip():
                    self._lines.append((event["step"], line))
            case "step_started":
                self._steps[event["step"]] = Step(event["name"])
            case "step_finished":
                step = self._steps.pop(event["step"], None) or Step(event["name"])
                step.took, step.cached, step.ok = event["seconds"], bool(event.get("cached")), bool(event.get("ok"))
                self._console.print(_row(step), soft_wrap=True)
                # Below are the lines of what runs; those of what has ended say nothing of it.
                self._lines = deque((each for each in self._lines if each[0] != event["step"]), maxlen=LINES)
            case "progress":
                if event["step"] in self._steps:
                    self._steps[event["step"]].progress = progress_text(event)
            case "state":
                self._state = shown(state_text(event), terminal=True)
                if event["to"] in ("queued", "canceling") and event.get("reason"):
                    self._console.print(Text(f"  {self._state}", style="yellow"))
                if event["to"] == "queued":
                    self._steps.clear()
                    self._lines.clear()
            case "notice":
                self._console.print(Text(f"  note: {shown(event['text'], terminal=True)}", style="yellow"))

    def events(self, batch: Batch) -> None:
        for event in batch.events:
            self.event(event)

    def flush(self) -> None:
        """The picture is drawn eight times a second by itself."""

    def note(self, text: str) -> None:
        self._console.print(Text(f"  {shown(text, terminal=True)}", style="bold yellow"))

    def end(self, job: Mapping[str, Any]) -> None:
        self._live.stop()
        good = job["state"] == "succeeded"
        first, *rest = (shown(line, terminal=True) for line in ending(job))
        took = seconds(time.monotonic() - self._began)
        self._console.print(
            Text.assemble(("✓ " if good else "✗ ", "green" if good else "red"), (first, "bold"), f"  {took}")
        )
        for line in rest:
            self._console.print(Text(line), soft_wrap=True)
        sys.stdout.flush()

    def _picture(self) -> RenderableType:
        """What stands at the bottom now."""
        rows: list[RenderableType] = []
        # Of many steps at once the newest are the ones to watch.
        for step in list(self._steps.values())[-STEPS:]:
            table = Table.grid(padding=(0, 1))
            table.add_row(self._spinner, _row(step, running=True))
            rows.append(table)
        for _, line in self._lines:
            rows.append(Text.from_ansi(f"    {line}", style="dim", no_wrap=True, overflow="ellipsis"))
        if not rows:
            table = Table.grid(padding=(0, 1))
            table.add_row(self._spinner, Text(self._state))
            rows.append(table)
        return Group(*rows)


def _row(step: Step, *, running: bool = False) -> Text:
    name = shown(step.name, terminal=True)
    if running:
        return Text.assemble(name, (f"  {seconds(time.monotonic() - step.began)} {step.progress}", "dim"))
    if step.cached:
        return Text.assemble(("✓ ", "green"), name, ("  cached", "cyan"))
    mark = ("✓ ", "green") if step.ok else ("✗ ", "red")
    return Text.assemble(mark, name, (f"  {seconds(step.took or 0.0)}", "dim"))
