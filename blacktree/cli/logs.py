"""`blacktree logs` and `blacktree events`: what a job printed, and what happened to the farm."""

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from blacktree.cli.options import debug_option, json_option, server_options

if TYPE_CHECKING:
    from blacktree.cli.server import Endpoint

PAGE = 5000
WAIT_SECONDS = 25.0

EPILOG = """\b
Examples:
  blacktree logs 06f1s7x2h0c9q4rt
  blacktree logs 06f1s7x2h0c9q4rt --follow --from 1200
  blacktree logs --deployment app --follow

With --follow the exit code is the job's: 0 built, 1 failed, 3 canceled, 4 timed out, 5 lost.
"""


@click.command(epilog=EPILOG)
@click.argument("job", required=False)
@click.option("--deployment", metavar="NAME", help="What this deployment prints, instead of a job.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended; survives a restart of the server.")
@click.option("--from", "from_seq", metavar="SEQ", type=click.IntRange(1), default=1, help="Begin with this event.")
@json_option
@server_options
@debug_option
@click.pass_context
def logs(
    ctx: click.Context, job: str | None, deployment: str | None, follow: bool, from_seq: int, as_json: bool
) -> None:
    """Print the log of JOB, or of a deployment, from its first event on."""
    import trio

    from blacktree.cli.server import endpoint

    if (job is None) == (deployment is None):
        raise click.UsageError("name either a JOB or a --deployment", ctx)
    if deployment is not None:
        ctx.exit(trio.run(_deployment_logs, endpoint(), deployment, follow, from_seq, as_json))
    ctx.exit(trio.run(_logs, endpoint(), str(job), follow, from_seq, as_json))


async def _deployment_logs(where: "Endpoint", name: str, following: bool, from_seq: int, as_json: bool) -> int:
    from blacktree.cli.connection import open_farm
    from blacktree.cli.deploylog import deployment_printer, follow_log, print_log

    printer = deployment_printer(as_json=as_json)
    async with open_farm(where, printer.note) as farm:
        with printer:
            read = follow_log if following else print_log
            return await read(farm, name, from_seq, printer)


async def _logs(where: "Endpoint", job_id: str, following: bool, from_seq: int, as_json: bool) -> int:
    from blacktree.cli.connection import open_farm
    from blacktree.cli.follow import follow
    from blacktree.cli.progress import printer_for

    printer = printer_for(as_json=as_json, whole=False)
    async with open_farm(where, printer.note) as farm:
        with printer:
            if following:
                return await follow(farm, job_id, printer, from_seq=from_seq, cancels=False)
            while True:
                page = await farm.events(job_id, from_seq, limit=PAGE)
                for event in page["events"]:
                    printer.event(event)
                printer.flush()
                # A page that is not full was the end, even of a job that goes on printing.
                if len(page["events"]) < PAGE:
                    return 0
                from_seq = page["next_seq"]


@click.command(epilog="\b\nExamples:\n  blacktree events\n  blacktree events --follow --json\n")
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--from", "from_seq", metavar="SEQ", type=click.IntRange(1), default=1, help="Begin with this event.")
@json_option
@server_options
@debug_option
@click.pass_context
def events(ctx: click.Context, follow: bool, from_seq: int, as_json: bool) -> None:
    """Print the farm's own log: workers joined, lost, drained; broker and engine lost and back; start, shutdown."""
    import trio

    from blacktree.cli.server import endpoint

    ctx.exit(trio.run(_events, endpoint(), follow, from_seq, as_json))


async def _events(where: "Endpoint", following: bool, from_seq: int, as_json: bool) -> int:
    from blacktree.cli.connection import open_farm

    async with open_farm(where) as farm:
        wait = 0.0
        while True:
            page = await farm.farm_events(from_seq, limit=PAGE, wait=wait)
            for event in page["events"]:
                click.echo(json.dumps(event, ensure_ascii=False) if as_json else event_line(event))
            sys.stdout.flush()
            from_seq = page["next_seq"]
            if not page["events"]:
                if not following:
                    return 0
                wait = WAIT_SECONDS


def event_line(event: Mapping[str, Any]) -> str:
    """One event of the farm for a person."""
    return f"{event['time'][:19]}Z  {event['type']:<18} {event['text']}"
