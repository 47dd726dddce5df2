"""How a job's events look: JSON lines for programs, plain lines for a pipe, a live picture for a terminal."""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from blacktree.cli.wording import Event, ending, printed, seconds, shown, stamp, state_text

if TYPE_CHECKING:
    from blacktree.client import Batch


class Printer(Protocol):
    """Shows one job while it is followed. A context manager: leaving it restores the terminal."""

    def __enter__(self) -> "Printer": ...

    def __exit__(self, *exc: object) -> None: ...

    def begin(self, job_id: str) -> None:
        """The job is on record under this id."""
        ...

    def know(self, steps: Iterable[Mapping[str, Any]]) -> None:
        """The names of steps whose beginning is not among the events."""
        ...

    def event(self, event: Event) -> None:
        """One event, in order; may be buffered until `flush`."""
        ...

    def events(self, batch: "Batch") -> None:
        """Some events, in order, and to be seen at once."""
        ...

    def flush(self) -> None:
        """Let everything so far be seen."""
        ...

    def note(self, text: str) -> None:
        """Something about the following itself, not the job: never on stdout of a program that reads JSON."""
        ...

    def end(self, job: Mapping[str, Any]) -> None:
        """The job has ended."""
        ...


def printer_for(*, as_json: bool, whole: bool = True) -> Printer:
    """The printer that fits stdout. `whole`: the end is told too, not the events alone."""
    if as_json:
        return JsonPrinter(whole=whole)
    # Of marks and spinners another encoding would show question marks.
    if whole and sys.stdout.isatty() and sys.stdout.encoding.lower().startswith("utf"):
        from blacktree.cli.live import LivePrinter

        return LivePrinter()
    return PlainPrinter(whole=whole)


class JsonPrinter:
    """One JSON document a line: the events, and at the end `{"job": …}`."""

    def __init__(self, *, whole: bool = True, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._whole = whole

    def __enter__(self) -> "JsonPrinter":
        return self

    def __exit__(self, *exc: object) -> None:
        self._out.flush()

    def begin(self, job_id: str) -> None:
        self.note(f"job {job_id}")

    def know(self, steps: Iterable[Mapping[str, Any]]) -> None:
        """Programs read the ids."""

    def event(self, event: Event) -> None:
        self._out.write(json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n")

    def events(self, batch: "Batch") -> None:
        for raw in batch.raw:
            self._out.write(raw.decode() + "\n")
        self._out.flush()

    def flush(self) -> None:
        self._out.flush()

    def note(self, text: str) -> None:
        print(f"blacktree: {printed(text, sys.stderr)}", file=sys.stderr, flush=True)

    def end(self, job: Mapping[str, Any]) -> None:
        if self._whole:
            self.event({"job": dict(job)})
            self._out.flush()


class PlainPrinter:
    """Plain lines: what the build prints as it is, what happens around it behind `==>`.

    `timestamps`: each event's time before its line. `heads` false: on a pipe no word of whose lines they are.
    """

    def __init__(
        self, *, whole: bool = True, out: TextIO | None = None, timestamps: bool = False, heads: bool = True
    ) -> None:
        self._out = out or sys.stdout
        self._terminal = self._out.isatty()
        self._whole = whole
        self._timestamps = timestamps
        self._heads = heads or self._terminal
        self._stamp = ""
        self._names: dict[str, str] = {}
        self._current: str | None = None
        self._piece = False

    def __enter__(self) -> "PlainPrinter":
        return self

    def __exit__(self, *exc: object) -> None:
        self._out.flush()

    def begin(self, job_id: str) -> None:
        self._write(f"==> job {job_id}")
        self._out.flush()

    def know(self, steps: Iterable[Mapping[str, Any]]) -> None:
        self._names |= {step["step"]: step["name"] for step in steps}

    def event(self, event: Event) -> None:
        self._stamp = f"{stamp(event['time'])} " if self._timestamps else ""
        match event["type"]:
            case "log":
                self._log(event)
            case "step_started":
                self._names[event["step"]] = event["name"]
                self._head(event["step"])
            case "step_finished":
                self._names[event["step"]] = event["name"]
                self._finished(event)
            case "state":
                self._write(f"==> {state_text(event)}")
                self._current = None
            case "notice":
                self._write(f"==> note: {event['text']}")

    def events(self, batch: "Batch") -> None:
        for event in batch.events:
            self.event(event)
        self._out.flush()

    def flush(self) -> None:
        self._out.flush()

    def _log(self, event: Event) -> None:
        if event["step"] != self._current and self._heads:
            self._head(event["step"])
        # The pieces of an over-long line are put together again.
        if not self._piece:
            self._out.write(self._stamp)
        self._out.write(shown(event["line"], terminal=self._terminal))
        self._piece = bool(event.get("partial"))
        if not self._piece:
            self._out.write("\n")

    def _finished(self, event: Event) -> None:
        if event.get("cached"):
            mark = "cached"
        else:
            mark = f"{'done' if event.get('ok') else 'FAILED'} in {seconds(event['seconds'])}"
        self._write(f"==> {event['name']}: {mark}")
        if self._current == event["step"]:
            self._current = None

    def _head(self, step: str) -> None:
        self._current = step
        self._write(f"==> {self._names.get(step, step)}")

    def _write(self, text: str) -> None:
        if self._piece:
            self._out.write("\n")
            self._piece = False
        self._out.write(self._stamp + shown(text, terminal=self._terminal) + "\n")

    def note(self, text: str) -> None:
        self._out.flush()
        print(f"blacktree: {printed(text, sys.stderr)}", file=sys.stderr, flush=True)

    def end(self, job: Mapping[str, Any]) -> None:
        self._stamp = ""
        if self._whole:
            for line in ending(job):
                self._write(line)
            self._out.flush()
