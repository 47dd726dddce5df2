"""Following a deployment: until a version runs or has failed, until it is settled again, or without end."""

import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click
import trio

from blacktree.cli.exits import CANCELED, FAILED, LEFT_RUNNING, OK
from blacktree.cli.progress import JsonPrinter, PlainPrinter, Printer
from blacktree.cli.wording import Event, shown, stamp
from blacktree.client import Client

ENDS = {"running": OK, "failed": FAILED, "stopped": CANCELED}
PAGE = 5000
# A port is opened when its version serves: so long at most is waited to hear how that went.
PORTS_SECONDS = 10.0
PORTS_PAUSE_SECONDS = 0.2


class DeploymentPrinter(PlainPrinter):
    """Plain lines: what containers print as it is, what happens around them behind `==>`."""

    def event(self, event: Event) -> None:
        self._stamp = f"{stamp(event['time'])} " if self._timestamps else ""
        match event["type"]:
            case "state":
                why = f": {event['reason']}" if event.get("reason") else ""
                self._write(f"==> version {event['attempt']} {event['to']}{why}")
                self._current = None
            case "notice":
                self._write(f"==> version {event['attempt']}: {event['text']}")
                self._current = None
            case _:
                super().event(event)

    def begin(self, job_id: str) -> None:
        self._write(f"==> deployment {job_id}")
        self._out.flush()

    def end(self, job: Mapping[str, Any]) -> None:
        self._out.flush()

    def _head(self, step: str) -> None:
        self._current = step
        version, _, index = step.partition("/")
        self._write(f"==> version {version}, replica {index}")


def deployment_printer(*, as_json: bool) -> Printer:
    """The printer that fits."""
    return JsonPrinter(whole=False) if as_json else DeploymentPrinter()


async def follow_version(farm: Client, name: str, version: int, from_seq: int, printer: Printer) -> int:
    """Print what happens until this version runs (0), has failed (1) or was stopped (3); 130 after Ctrl-C."""
    code = LEFT_RUNNING
    async with trio.open_nursery() as nursery:
        await nursery.start(_leave_on_interrupt, nursery, lambda: printer.note(_left(name)))
        async with farm.watch_deployment(name, from_seq) as watch:
            async for batch in watch:
                # The versions beside it go on printing; what is asked about is this one.
                for event in batch.events:
                    if event["attempt"] == version:
                        printer.event(event)
                printer.flush()
                ends = [
                    ENDS[event["to"]]
                    for event in batch.events
                    if event["type"] == "state" and event["attempt"] == version and event["to"] in ENDS
                ]
                if ends:
                    code = ends[-1]
                    break
        nursery.cancel_scope.cancel()
    return code


async def follow_until(
    farm: Client, name: str, done: Callable[[Mapping[str, Any]], int | None], note: Callable[[str], None]
) -> int:
    """Wait until `done` answers an exit code for the deployment; 130 after Ctrl-C."""
    code: int | None = LEFT_RUNNING
    async with trio.open_nursery() as nursery:
        await nursery.start(_leave_on_interrupt, nursery, lambda: note(_left(name)))
        async with farm.watch_deployment(name, (1 << 53)) as watch:
            if (code := done(watch.deployment)) is None:
                async for _ in watch:
                    if (code := done(watch.deployment)) is not None:
                        break
        nursery.cancel_scope.cancel()
    return LEFT_RUNNING if code is None else code


async def follow_ports(farm: Client, name: str, version: int) -> int:
    """Of a version that runs: 0 when its front ports lead to it, 1 when one cannot be opened."""
    from blacktree.client.deployments import deployment

    code: int | None = None
    with trio.move_on_after(PORTS_SECONDS):
        while (code := reached(await deployment(farm, name), version)) is None:
            await trio.sleep(PORTS_PAUSE_SECONDS)
    return OK if code is None else code


def reached(deployment: Mapping[str, Any], number: int) -> int | None:
    """The exit code of a version that runs, once it is known whether anybody can reach it."""
    version = _version(deployment, number)
    state = version.get("state")
    if state != "running" or not version["run"]["ports"] or version["drain_until"]:
        # It broke, or a newer one has taken over meanwhile.
        return FAILED if state == "failed" else OK
    if closed_ports(deployment, number):
        return FAILED
    own = [each for each in deployment["replicas"] if each["version"] == number]
    return OK if any(each["serving"] for each in own) else None


def closed_ports(deployment: Mapping[str, Any], number: int) -> list[str]:
    """Why front ports of this version are not open."""
    own = [each for each in deployment["replicas"] if each["version"] == number and each["state"] == "healthy"]
    return sorted({each["reason"] for each in own if each.get("code") == "port_taken" and each["reason"]})


def _version(deployment: Mapping[str, Any], number: int) -> Mapping[str, Any]:
    return next((each for each in deployment["versions"] if each["number"] == number), {})


async def follow_log(farm: Client, name: str, from_seq: int, printer: Printer) -> int:
    """Print the log without end; 130 after Ctrl-C."""
    async with trio.open_nursery() as nursery:
        await nursery.start(_leave_on_interrupt, nursery, lambda: None)
        async with farm.watch_deployment(name, from_seq) as watch:
            async for batch in watch:
                printer.events(batch)
    return LEFT_RUNNING


async def print_log(farm: Client, name: str, from_seq: int, printer: Printer) -> int:
    """Print the log as far as it goes."""
    from blacktree.client.deployments import events

    while True:
        page = await events(farm, name, from_seq, limit=PAGE)
        for event in page["events"]:
            printer.event(event)
        printer.flush()
        if len(page["events"]) < PAGE:
            return OK
        from_seq = page["next_seq"]


async def _leave_on_interrupt(
    nursery: trio.Nursery, tell: Callable[[], None], *, task_status: trio.TaskStatus[None]
) -> None:
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            break
    tell()
    nursery.cancel_scope.cancel()


def _left(name: str) -> str:
    return f"no longer waiting; follow it with `blacktree logs --deployment {name} --follow`"


def outcome_lines(deployment: Mapping[str, Any], number: int) -> list[str]:
    """How a version came out, for a person: where it listens, or what broke."""
    version = _version(deployment, number)
    state = version.get("state", "gone")
    if state == "running":
        ports = [f"{port['address']}:{port['host']}" for port in version["run"]["ports"]]
        where = f" on {', '.join(ports)}" if ports else ""
        workers = sorted({each["worker_id"] for each in deployment["replicas"] if each["version"] == number})
        lines = [f"deployment {deployment['name']}: version {number} runs{where} (worker {', '.join(workers)})"]
        closed = [f"  but {why}; it is tried again until it is free" for why in closed_ports(deployment, number)]
        return lines + closed
    why = f": {version['reason']}" if version.get("reason") else ""
    lines = [f"deployment {deployment['name']}: version {number} {state}{why}"]
    lines += [f"  | {line}" for line in version.get("last_lines", [])[-10:]]
    if deployment["serving"] is not None:
        lines.append(f"  version {deployment['serving']} goes on serving")
    return lines


def say_outcome(deployment: Mapping[str, Any], number: int) -> None:
    """Print it."""
    for line in outcome_lines(deployment, number):
        click.echo(shown(line, terminal=sys.stdout.isatty()))
