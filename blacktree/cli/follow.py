"""Following a job to its end, and what Ctrl-C means meanwhile."""

import json
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import click
import trio

from blacktree.cli.connection import open_farm
from blacktree.cli.exits import JOB_CODES, LEFT_RUNNING
from blacktree.cli.progress import Printer, printer_for
from blacktree.cli.server import Endpoint, endpoint
from blacktree.client import Client
from blacktree.errors import BlacktreeError

WAITING_SECONDS = 3.0
WAITING_PERIOD_SECONDS = 15.0
# On its way: nothing that somebody should do anything about.
_NO_NEWS = "about to be handed to a worker"

Start = Callable[[Client], Awaitable[dict[str, Any]]]


def run_and_follow(start: Start, *, detach: bool, as_json: bool) -> int:
    """Submit by `start` and follow; answers the exit code."""
    return trio.run(_run, start, endpoint(), detach, as_json)


async def _run(start: Start, where: Endpoint, detach: bool, as_json: bool) -> int:
    printer = printer_for(as_json=as_json)
    async with open_farm(where, printer.note) as farm:
        job = await start(farm)
        if detach:
            click.echo(json.dumps({"job": job}, ensure_ascii=False) if as_json else job["id"])
            return 0
        with printer:
            printer.begin(job["id"])
            return await follow(farm, job["id"], printer, cancels=True)


async def follow(farm: Client, job_id: str, printer: Printer, *, from_seq: int = 1, cancels: bool) -> int:
    """Print the job's events until it ends; answers the exit code.

    `cancels`: the first Ctrl-C asks for cancellation, and its proof is waited for. The last one always just leaves.
    """
    code = LEFT_RUNNING
    async with trio.open_nursery() as nursery:
        await nursery.start(_interrupts, farm, job_id, printer, cancels, nursery)
        nursery.start_soon(_tell_why_it_waits, farm, job_id, printer)
        async with farm.watch(job_id, from_seq) as watch:
            async for batch in watch:
                printer.events(batch)
            printer.end(watch.job)
            code = JOB_CODES.get(watch.job["state"], LEFT_RUNNING)
        nursery.cancel_scope.cancel()
    return code


async def _tell_why_it_waits(farm: Client, job_id: str, printer: Printer) -> None:
    """A job that stays queued says nothing by itself; once it runs, it does."""
    said = ""
    seconds = WAITING_SECONDS
    while True:
        await trio.sleep(seconds)
        seconds = WAITING_PERIOD_SECONDS
        try:
            waiting = (await farm.job(job_id))["waiting"] or ""
        except BlacktreeError:
            return
        if not waiting:
            return
        if waiting != said and _NO_NEWS not in waiting:
            printer.note(f"the job waits: {waiting}")
            said = waiting


async def _interrupts(
    farm: Client,
    job_id: str,
    printer: Printer,
    cancels: bool,
    nursery: trio.Nursery,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            if not cancels:
                break
            cancels = False
            printer.note("asking for cancellation and waiting for its proof; Ctrl-C again leaves the job alone")
            nursery.start_soon(_cancel, farm, job_id, printer)
    printer.note(f"no longer waiting for job {job_id}; follow it with `blacktree logs {job_id} --follow`")
    nursery.cancel_scope.cancel()


async def _cancel(farm: Client, job_id: str, printer: Printer) -> None:
    try:
        await farm.cancel(job_id, reason="interrupted by Ctrl-C")
    except BlacktreeError as error:
        printer.note(f"the cancellation could not be asked for: {error}")
