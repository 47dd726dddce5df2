"""`blacktree logs` and `blacktree events`: what a job printed, and what happened to the farm."""

import json
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from blacktree.cli.completing import any_job, deployment_name
from blacktree.cli.options import Moment, debug_option, json_option, server_options

if TYPE_CHECKING:
    from blacktree.cli.server import Endpoint

PAGE = 5000
WAIT_SECONDS = 25.0

EPILOG = """\b
Examples:
  blacktree logs 06f1s7x2h0c9q4rt
  blacktree logs 06f1s7x2h0c9q4rt --follow --from 1200
  blacktree logs 06f1s7x2h0c9q4rt --grep 'error|warning' -i --timestamps
  blacktree logs 06f1s7x2h0c9q4rt --step 'make test' --since 10m --follow
  blacktree logs --deployment app --follow

With --follow the exit code is the job's: 0 built, 1 failed, 3 canceled, 4 timed out, 5 lost.
"""


class Pattern(click.ParamType["re.Pattern[str]"]):
    """A regular expression."""

    name = "pattern"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "re.Pattern[str]":
        if isinstance(value, re.Pattern):
            return value
        try:
            return re.compile(str(value))
        except (re.error, RecursionError, OverflowError) as error:
            self.fail(
                f"{value!r} is no regular expression: {error}; put a backslash before a character that is meant as "
                "itself",
                param,
                ctx,
            )


@click.command(epilog=EPILOG)
@click.argument("job", required=False, shell_complete=any_job)
@click.option(
    "--deployment",
    metavar="NAME",
    shell_complete=deployment_name,
    help="What this deployment prints, instead of a job.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended; survives a restart of the server.")
@click.option("--from", "from_seq", metavar="SEQ", type=click.IntRange(1), default=1, help="Begin with this event.")
@click.option(
    "--grep", "pattern", metavar="PATTERN", type=Pattern(), help="Only lines in which this regular expression is found."
)
@click.option("-i", "--ignore-case", is_flag=True, help="For --grep: upper and lower case are the same.")
@click.option("--step", metavar="NAME", default="", help="Only this step: its name, or a part of it.")
@click.option("--timestamps", is_flag=True, help="Each line begins with its time, in UTC.")
@click.option("--since", metavar="10m|TIME", type=Moment(), help="Only what is not older: a duration, or RFC 3339.")
@json_option
@server_options
@debug_option
@click.pass_context
def logs(
    ctx: click.Context,
    /,
    job: str | None,
    deployment: str | None,
    follow: bool,
    from_seq: int,
    pattern: "re.Pattern[str] | None",
    ignore_case: bool,
    step: str,
    timestamps: bool,
    since: datetime | None,
    as_json: bool,
) -> None:
    """Print the log of JOB, or of a deployment, from its first event on.

    --grep, --step and --since may be combined, and go with --follow and --json."""
    import trio

    from blacktree.cli.joblog import read_deployment_log, read_job_log
    from blacktree.cli.logfilter import Wanted
    from blacktree.cli.server import endpoint

    if (job is None) == (deployment is None):
        raise click.UsageError("name either a JOB or a --deployment", ctx)
    if ignore_case and pattern is None:
        raise click.UsageError("--ignore-case goes with --grep", ctx)
    if pattern is not None and ignore_case:
        pattern = re.compile(pattern.pattern, re.IGNORECASE)
    wanted = Wanted(pattern, step, since)
    name = str(job if deployment is None else deployment)
    reader = read_job_log if deployment is None else read_deployment_log

    async def read() -> int:
        return await reader(
            endpoint(), name, wanted, from_seq, following=follow, as_json=as_json, timestamps=timestamps
        )

    ctx.exit(trio.run(read))


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
    from blacktree.cli.wording import printed

    async with open_farm(where) as farm:
        wait = 0.0
        while True:
            page = await farm.farm_events(from_seq, limit=PAGE, wait=wait)
            for event in page["events"]:
                line = json.dumps(event, ensure_ascii=False) if as_json else printed(event_line(event), sys.stdout)
                click.echo(line)
            sys.stdout.flush()
            from_seq = page["next_seq"]
            if not page["events"]:
                if not following:
                    return 0
                wait = WAIT_SECONDS


def event_line(event: Mapping[str, Any]) -> str:
    """One event of the farm for a person."""
    return f"{event['time'][:19]}Z  {event['type']:<18} {event['text']}"
