"""`blacktree notify …`: addresses that are told what becomes of jobs and deployments."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from blacktree.cli.completing import target_name
from blacktree.cli.options import debug_option, json_option, server_options

F = TypeVar("F", bound=Callable[..., Any])

CLEARED: dict[str, Any] = {"events": [], "repositories": []}

ADD_EPILOG = """\b
Examples:
  blacktree notify add chat --url https://chat.example.org/hooks/farm --secret chat-hook
  blacktree notify add pager --url https://pager.example.org/in --secret pager-hook --event job.failed \\
      --event 'deployment.*' --repository 'git.example.org/team/**'
"""


@click.group(epilog="\b\nExamples:\n  blacktree notify list\n  blacktree notify log chat\n")
@debug_option
def notify() -> None:
    """Declare addresses that are told what becomes of jobs and deployments, by signed webhooks."""


def _fields(command: F) -> F:
    """The options that `add` and `edit` share."""
    for option in reversed(
        [
            click.option("--event", "events", multiple=True, metavar="NAME", help="Tell of these (job.*); repeatable."),
            click.option(
                "--repository", "repositories", multiple=True, metavar="PATTERN", help="Only of these; repeatable."
            ),
            click.option("--paused/--not-paused", default=None, help="Whether to keep silent."),
        ]
    ):
        command = option(command)
    return command


@notify.command(epilog=ADD_EPILOG)
@click.argument("name")
@click.option("--url", required=True, metavar="URL", help="Where messages go: http or https.")
@click.option("--secret", required=True, metavar="NAME", help="In the vault: what messages are signed with.")
@_fields
@json_option
@server_options
@debug_option
def add(name: str, url: str, secret: str, as_json: bool, **options: Any) -> None:
    """Declare target NAME. Without an event it hears of every end of a job, and of versions that run, fail or stop."""
    from blacktree.cli.connection import ask
    from blacktree.client.notify import add_target

    made = ask(lambda farm: add_target(farm, {"name": name, "url": url, "secret": secret, **chosen(options)}))
    if as_json:
        click.echo(json.dumps(made, ensure_ascii=False))
        return
    click.echo(f"target {made['name']} declared; `blacktree notify test {made['name']}` sends it a message")


@notify.command(name="list", epilog="\b\nExample:\n  blacktree notify list --json\n")
@json_option
@server_options
@debug_option
def list_(as_json: bool) -> None:
    """List the targets."""
    from blacktree.cli.connection import ask
    from blacktree.cli.table import print_table
    from blacktree.client.notify import targets

    found = ask(targets)
    if as_json:
        click.echo(json.dumps({"targets": found}, ensure_ascii=False))
        return
    if not found:
        click.echo("no targets; declare one with `blacktree notify add`", err=True)
        return
    rows = [("TARGET", "URL", "EVENTS", "WAITING", "NOTE")]
    for each in found:
        events = ", ".join(each["events"]) or "ends"
        rows.append((each["name"], each["url"], events, str(each["waiting"]), note(each)))
    print_table(rows)


@notify.command(epilog="\b\nExample:\n  blacktree notify show chat --json\n")
@click.argument("name", shell_complete=target_name)
@json_option
@server_options
@debug_option
def show(name: str, as_json: bool) -> None:
    """Show target NAME whole."""
    from blacktree.cli.connection import ask
    from blacktree.client.notify import target

    found = ask(lambda farm: target(farm, name))
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    for key, value in found.items():
        click.echo(f"{key:<13} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")


@notify.command(
    epilog="\b\nExamples:\n  blacktree notify edit chat --event job.failed\n  blacktree notify edit chat --paused\n"
)
@click.argument("name", shell_complete=target_name)
@click.option("--url", metavar="URL", help="Where messages go.")
@click.option("--secret", metavar="NAME", help="In the vault: what messages are signed with.")
@_fields
@click.option("--clear", multiple=True, type=click.Choice(list(CLEARED)), help="Empty this field; repeatable.")
@json_option
@server_options
@debug_option
def edit(name: str, clear: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Change target NAME: what is given replaces what was there. What waits for it is tried at once."""
    from blacktree.cli.connection import ask
    from blacktree.client.notify import edit_target

    changes = {field: CLEARED[field] for field in clear} | chosen(options)
    if not changes:
        raise click.UsageError("nothing to change was given")
    made = ask(lambda farm: edit_target(farm, name, changes))
    click.echo(json.dumps(made, ensure_ascii=False) if as_json else f"target {made['name']} changed")


@notify.command(epilog="\b\nExample:\n  blacktree notify remove chat\n")
@click.argument("name", shell_complete=target_name)
@json_option
@server_options
@debug_option
def remove(name: str, as_json: bool) -> None:
    """Remove target NAME and what waits for it."""
    from blacktree.cli.connection import ask
    from blacktree.client.notify import remove_target

    was = ask(lambda farm: remove_target(farm, name))
    click.echo(json.dumps(was, ensure_ascii=False) if as_json else f"target {was['name']} removed")


@notify.command(epilog="\b\nExample:\n  blacktree notify log chat --json\n")
@click.argument("name", shell_complete=target_name)
@json_option
@server_options
@debug_option
def log(name: str, as_json: bool) -> None:
    """Show the last tries to deliver to target NAME, newest first."""
    from blacktree.cli.connection import ask
    from blacktree.cli.table import print_table
    from blacktree.client.notify import deliveries

    found = ask(lambda farm: deliveries(farm, name))
    if as_json:
        click.echo(json.dumps({"deliveries": found}, ensure_ascii=False))
        return
    rows = [("AT", "EVENT", "RESULT", "HTTP", "SECONDS", "MESSAGE", "ERROR")]
    for each in found:
        status = str(each["status"] or "-")
        rows.append(
            (each["at"][:19], each["type"], each["result"], status, f"{each['seconds']:.3f}", each["id"], each["error"])
        )
    print_table(rows)


@notify.command(epilog="\b\nExample:\n  blacktree notify test chat\n")
@click.argument("name", shell_complete=target_name)
@json_option
@server_options
@debug_option
def test(name: str, as_json: bool) -> None:
    """Send target NAME a message now, and say how that went. Exit code 1 if it was not taken."""
    from blacktree.cli.connection import ask
    from blacktree.client.notify import test_target

    tried = ask(lambda farm: test_target(farm, name))
    taken = tried["result"] == "delivered"
    if as_json:
        click.echo(json.dumps(tried, ensure_ascii=False))
    elif taken:
        click.echo(f"{name} took it: HTTP {tried['status']} after {tried['seconds']:.3f} s")
    else:
        click.echo(f"{name} did not take it: {tried['error']}", err=True)
    if not taken:
        click.get_current_context().exit(1)


def chosen(options: dict[str, Any]) -> dict[str, Any]:
    """The fields that were given on the command line."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
        if value is not None and value != ()
    }


def note(each: dict[str, Any]) -> str:
    """What is special about it."""
    notes = [word for word in ("configured", "paused") if each[word]]
    if each["failures"]:
        notes.append(f"{each['failures']} failures in a row")
    return ", ".join(notes)
