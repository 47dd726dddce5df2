"""`blacktree jobs`, `job` and `cancel`: what is on record, and how to end it."""

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from blacktree.cli.completing import any_job, running_job
from blacktree.cli.options import debug_option, json_option, server_options
from blacktree.cli.table import print_table

if TYPE_CHECKING:
    from blacktree.client import Client

STATES = ["queued", "assigned", "running", "canceling", "succeeded", "failed", "canceled", "timed_out", "lost"]

PAGE = 500
_COLOURS = {"succeeded": "green", "failed": "red", "timed_out": "red", "lost": "red", "canceled": "yellow"}


@click.command(epilog="\b\nExamples:\n  blacktree jobs --state queued --state running\n  blacktree jobs --json\n")
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only these; repeatable.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, metavar="N", help="At most so many.")
@click.option("--cursor", metavar="CURSOR", help="Go on where an earlier list ended.")
@json_option
@server_options
@debug_option
def jobs(states: tuple[str, ...], limit: int, cursor: str | None, as_json: bool) -> None:
    """List jobs, newest first."""
    from blacktree.cli.connection import ask

    async def read(farm: "Client") -> dict[str, Any]:
        found: list[dict[str, Any]] = []
        place = cursor
        # The server gives long lists in pages.
        while True:
            page = await farm.jobs(states, limit=min(PAGE, limit - len(found)), cursor=place)
            found += page["jobs"]
            place = page["cursor"]
            if place is None or len(found) >= limit or not page["jobs"]:
                return {"jobs": found, "cursor": place}

    page = ask(read)
    if as_json:
        click.echo(json.dumps(page, ensure_ascii=False))
        return
    if not page["jobs"]:
        click.echo("no jobs", err=True)
        return
    rows = [("JOB", "STATE", "AGE", "REPOSITORY", "REF", "WORKER")]
    for each in page["jobs"]:
        spec = each["spec"]
        ref = spec["ref"] or (each["commit"] or "")[:12] or "HEAD"
        rows.append(
            (each["id"], each["state"], age(each["created_at"]), spec["repository"], ref, each["worker_id"] or "-")
        )
    print_table(rows, colours=_COLOURS, column=1, cut=(3, 4))
    if page["cursor"]:
        click.echo(f"more: --cursor {page['cursor']}", err=True)


@click.command(epilog="\b\nExample:\n  blacktree job 06f1s7x2h0c9q4rt --json\n")
@click.argument("job_id", metavar="JOB", shell_complete=any_job)
@json_option
@server_options
@debug_option
def job(job_id: str, as_json: bool) -> None:
    """Show one job whole: its attempts and timings, why it waits, how it ended."""
    from blacktree.cli.connection import ask

    found = ask(lambda farm: farm.job(job_id))
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        click.echo("\n".join(job_lines(found)))


@click.command(epilog="\b\nExample:\n  blacktree cancel 06f1s7x2h0c9q4rt --reason 'wrong branch'\n")
@click.argument("job_id", metavar="JOB", shell_complete=running_job)
@click.option("--reason", metavar="TEXT", default="", help="Shown with the job.")
@json_option
@server_options
@debug_option
def cancel(job_id: str, reason: str, as_json: bool) -> None:
    """Cancel a job. Answers when the job has really ended: nothing of its build is left on the engine."""
    from blacktree.cli.connection import ask

    ended = ask(lambda farm: farm.cancel(job_id, reason=reason))
    if as_json:
        click.echo(json.dumps(ended, ensure_ascii=False))
    else:
        click.echo(f"job {ended['id']} {ended['state'].replace('_', ' ')}")


def job_lines(found: dict[str, Any]) -> list[str]:
    """A job for a person."""
    from blacktree.cli.wording import ending, seconds, shown

    spec = found["spec"]
    rows: list[tuple[str, Any]] = [
        ("job", found["id"]),
        ("state", found["state"].replace("_", " ")),
        ("waiting", found["waiting"]),
        ("source", f"{spec['repository']} {spec['ref'] or ''}".strip()),
        ("commit", found["commit"]),
        ("by", found.get("submitted_by")),
        ("retry of", found["retry_of"]),
        ("part of", found.get("part_of")),
        ("tries", f"{found['tries']} of {spec['max_attempts']}" if found["tries"] else None),
        *((name, _to_the_second(found[f"{name}_at"])) for name in ("created", "started", "finished")),
        ("took", seconds(_passed(found)) if found["started_at"] and found["finished_at"] else None),
    ]
    lines = [f"{name:<9} {value}" for name, value in rows if value]
    lines += [f"part {part['platform']}: job {part['job_id']}" for part in found.get("parts", ())]
    for attempt in found["attempts"]:
        text = f"attempt {attempt['attempt']}: worker {attempt['worker_id']}, {attempt['outcome'] or 'under way'}"
        if attempt["error"]:
            text += f": {attempt['error']['message']}"
        lines.append(text)
    for step in found["steps"]:
        if step["cached"]:
            mark = "cached"
        elif step["ok"] is None:
            mark = "under way"
        else:
            mark = f"{'' if step['ok'] else 'FAILED in '}{seconds(step['seconds'] or 0.0)}"
        lines.append(f"  {step['name']}: {mark}")
    if found["finished_at"]:
        lines += ending(found)
    return [shown(line, terminal=sys.stdout.isatty()) for line in lines]


def _to_the_second(moment: str | None) -> str | None:
    return moment and f"{moment[:19]}Z"


def _passed(found: dict[str, Any]) -> float:
    """Seconds from a job's first start to its end."""
    from datetime import datetime

    first, last = (datetime.fromisoformat(found[f"{name}_at"]) for name in ("started", "finished"))
    return (last - first).total_seconds()


def age(moment: str) -> str:
    """How long ago an RFC 3339 moment was, short: `12s`, `5m`, `3h`, `2d`."""
    from datetime import datetime

    from blacktree.clock import now

    passed = max(0.0, (now() - datetime.fromisoformat(moment)).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if passed >= size:
            return f"{int(passed // size)}{unit}"
    return f"{int(passed)}s"
