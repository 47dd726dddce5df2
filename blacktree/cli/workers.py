"""`blacktree workers` and `blacktree drain`: the pool."""

import json
from collections.abc import Mapping
from typing import Any

import click

from blacktree.cli.completing import worker_name
from blacktree.cli.options import debug_option, json_option, server_options


@click.command(epilog="\b\nExample:\n  blacktree workers --json\n")
@json_option
@server_options
@debug_option
def workers(as_json: bool) -> None:
    """List the workers: what they do, what they refuse and why."""
    from blacktree.cli.connection import ask
    from blacktree.cli.jobs import age
    from blacktree.cli.table import print_table

    found = ask(lambda farm: farm.workers())
    if as_json:
        click.echo(json.dumps({"workers": found}, ensure_ascii=False))
        return
    if not found:
        click.echo("no workers; start one with `blacktree worker`", err=True)
        return
    rows = [("WORKER", "STATE", "POOL", "BUSY", "DISK", "SEEN", "ENGINE", "NOTE")]
    for each in found:
        busy = f"{each['busy']}/{each['slots']}"
        disk = f"{each['free_disk_bytes'] / 1e9:.0f} GB" if each["free_disk_bytes"] else "-"
        seen = age(each["last_seen_at"])
        # Slots are free, and yet it takes nothing: the note says why.
        state = "refusing" if each["refusal"] and each["state"] == "free" else each["state"]
        rows.append((each["id"], state, each["pool"], busy, disk, seen, each["engine"] or "-", each["refusal"]))
    print_table(rows, colours={"free": "green", "dead": "red", "draining": "yellow", "refusing": "yellow"}, column=1)


@click.command(epilog="\b\nExamples:\n  blacktree drain w2\n  blacktree drain w2 --undo\n")
@click.argument("worker", shell_complete=worker_name)
@click.option("--undo", is_flag=True, help="Let it take builds again.")
@json_option
@server_options
@debug_option
def drain(worker: str, undo: bool, as_json: bool) -> None:
    """Let WORKER finish what it has and take nothing more. Remembered across restarts, until --undo.

    What deployments run on it moves to other workers where their specs allow it: a new container beside the old one,
    and when that is healthy the old one ends. What nobody else can take stays, and is named."""
    from blacktree.cli.connection import ask

    found = ask(lambda farm: farm.drain(worker, undo=undo))
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    elif undo:
        click.echo(f"worker {found['id']} takes builds again")
    else:
        rest = f"{found['busy']} still running" if found["busy"] else "nothing runs on it"
        click.echo(f"worker {found['id']} takes nothing more; {rest}")
        for line in leaving_lines(found):
            click.echo(line)


def leaving_lines(found: Mapping[str, Any]) -> list[str]:
    """What becomes of the replicas on a drained worker, for a person."""
    lines = []
    for each in found.get("leaving", []):
        which = f"deployment {each['deployment']}, replica {each['version']}/{each['index']}"
        reason = f": {each['reason']}" if each["reason"] else ""
        lines.append(f"{which} moves to {each['to']}{reason}" if each["to"] else f"{which} stays{reason}")
    return lines
