"""Reading a log for `blacktree logs`: all of it or what is asked for, once or following."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from blacktree.cli.exits import OK, USAGE
from blacktree.cli.logfilter import SKEW_SECONDS, LogFilter, Wanted
from blacktree.cli.progress import JsonPrinter, PlainPrinter, Printer
from blacktree.cli.wording import Event

if TYPE_CHECKING:
    from blacktree.cli.server import Endpoint
    from blacktree.client import Batch, Client

PAGE = 5000


class Sieve:
    """A printer that shows only what passes a filter."""

    def __init__(self, printer: Printer, chosen: LogFilter, *, alone: bool) -> None:
        """`alone`: lines are found one by one, so that the pieces of an over-long one stand for themselves."""
        self._printer = printer
        self._filter = chosen
        self._alone = alone

    def __enter__(self) -> "Sieve":
        self._printer.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._printer.__exit__(*exc)

    def begin(self, job_id: str) -> None:
        self._printer.begin(job_id)

    def know(self, steps: Iterable[Mapping[str, Any]]) -> None:
        self._printer.know(steps)

    def event(self, event: Event) -> None:
        if event["type"] == "step_started":
            self._printer.know([event])
        if self._filter.passes(event):
            self._printer.event({**event, "partial": False} if self._alone and event.get("partial") else event)

    def events(self, batch: "Batch") -> None:
        for event in batch.events:
            self.event(event)
        self.flush()

    def flush(self) -> None:
        self._printer.flush()

    def note(self, text: str) -> None:
        self._printer.note(text)

    def end(self, job: Mapping[str, Any]) -> None:
        self._printer.end(job)


def log_printer(wanted: Wanted, chosen: LogFilter, *, as_json: bool, timestamps: bool, deployment: bool) -> Printer:
    """What shows a log: the events that are asked for and nothing of the job's end."""
    printer: Printer
    if as_json:
        printer = JsonPrinter(whole=False)
    elif deployment:
        from blacktree.cli.deploylog import DeploymentPrinter

        printer = DeploymentPrinter(timestamps=timestamps, heads=wanted.pattern is None)
    else:
        printer = PlainPrinter(whole=False, timestamps=timestamps, heads=wanted.pattern is None)
    if wanted == Wanted():
        return printer
    return Sieve(printer, chosen, alone=wanted.pattern is not None and not as_json)


async def read_job_log(
    where: "Endpoint", job_id: str, wanted: Wanted, from_seq: int, *, following: bool, as_json: bool, timestamps: bool
) -> int:
    """Print a job's log; answers the exit code."""
    from blacktree.cli.connection import open_farm
    from blacktree.cli.follow import follow

    chosen = LogFilter(wanted)
    printer = log_printer(wanted, chosen, as_json=as_json, timestamps=timestamps, deployment=False)
    async with open_farm(where, printer.note) as farm:
        with printer:
            if from_seq > 1 or wanted != Wanted():
                steps = (await farm.job(job_id))["steps"]
                chosen.know(steps)
                printer.know(steps)
            if wanted.since is not None:
                from_seq = max(from_seq, await _begin(farm, job_id, wanted))
            if wanted.literal:
                from_seq = await _find(farm, job_id, wanted.literal, from_seq, printer)
            if following:
                code = await follow(farm, job_id, printer, from_seq=from_seq, cancels=False)
            else:
                code = OK if wanted.literal else await _read(farm, job_id, from_seq, printer)
        if not chosen.step_seen:
            printer.note(unknown_step(wanted.step, chosen.names))
            code = code if following else USAGE
    return code


async def _begin(farm: "Client", job_id: str, wanted: Wanted) -> int:
    from datetime import datetime

    from blacktree.client.place import first_seq

    assert wanted.since is not None
    moment = wanted.since - timedelta(seconds=SKEW_SECONDS)
    return await first_seq(farm, job_id, lambda event: datetime.fromisoformat(event["time"]) >= moment)


async def _find(farm: "Client", job_id: str, text: str, from_seq: int, printer: Printer) -> int:
    """Print what the server finds; answers where the log ended."""
    from blacktree.client.place import search

    while True:
        found = await search(farm, job_id, text, from_seq)
        for event in found["events"]:
            printer.event(event)
        printer.flush()
        from_seq = found["seen_seq"]
        if found["next_seq"] is None:
            return from_seq


async def _read(farm: "Client", job_id: str, from_seq: int, printer: Printer) -> int:
    while True:
        page = await farm.events(job_id, from_seq, limit=PAGE)
        for event in page["events"]:
            printer.event(event)
        printer.flush()
        # A page that is not full was the end, even of a job that goes on printing.
        if len(page["events"]) < PAGE:
            return OK
        from_seq = page["next_seq"]


async def read_deployment_log(
    where: "Endpoint", name: str, wanted: Wanted, from_seq: int, *, following: bool, as_json: bool, timestamps: bool
) -> int:
    """Print what a deployment prints; answers the exit code."""
    from blacktree.cli.connection import open_farm
    from blacktree.cli.deploylog import follow_log, print_log

    chosen = LogFilter(wanted)
    printer = log_printer(wanted, chosen, as_json=as_json, timestamps=timestamps, deployment=True)
    async with open_farm(where, printer.note) as farm:
        with printer:
            read = follow_log if following else print_log
            code = await read(farm, name, from_seq, printer)
        if not following and not chosen.step_seen:
            printer.note(f"no replica {wanted.step!r} has printed anything; a name is VERSION/INDEX, such as 3/1")
            return USAGE
    return code


def unknown_step(step: str, names: list[str]) -> str:
    """That no step has this name, and which there are."""
    if not names:
        return f"no step {step!r}: nothing of this job has run yet"
    return f"no step {step!r}; there are: {' · '.join(names[:20])}{' · …' if len(names) > 20 else ''}"
