"""`blacktree source …`: the repositories whose webhooks are built."""

import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from blacktree.cli.completing import source_name
from blacktree.cli.options import debug_option, json_option, server_options

F = TypeVar("F", bound=Callable[..., Any])

ALLOWANCES = ["secrets", "push", "deployment", "cache"]
LISTS = ("branches", "tags", "secrets", "allow_forks")
CLEARED: dict[str, Any] = {name: [] for name in LISTS} | {
    "spec": {},
    "run": None,
    "webhook_secret": None,
    "forge_token": None,
    "forge_url": None,
}

ADD_EPILOG = """\b
Examples:
  blacktree source add app --repository https://github.com/owner/app.git --branch main --webhook-secret app-hook
  blacktree source add rel --repository https://git.example.org/team/app.git --forge gitea --tag 'v*' --push \\
      --spec spec.json --webhook-secret app-hook --forge-token git.example.org
"""


@click.group(epilog="\b\nExamples:\n  blacktree source list\n  blacktree source show app --json\n")
@debug_option
def source() -> None:
    """Declare repositories: what their forge reports by webhook is built."""


def _fields(command: F) -> F:
    """The options that `add` and `edit` share."""
    for option in reversed(
        [
            click.option("--forge", type=click.Choice(["github", "gitlab", "gitea"]), help="gitea is Forgejo too."),
            click.option("--branch", "branches", multiple=True, metavar="PATTERN", help="Build these; repeatable."),
            click.option("--tag", "tags", multiple=True, metavar="PATTERN", help="Build these tags; repeatable."),
            click.option(
                "--pull-requests/--no-pull-requests", default=None, help="Build pull requests into these branches."
            ),
            click.option("--spec", type=click.File("rb"), metavar="FILE.json", help="Fields of the jobs, as JSON."),
            click.option("--run", type=click.File("rb"), metavar="FILE.json", help="The deployment, as JSON."),
            click.option("--push/--no-push", default=None, help="Push the images."),
            click.option("--secret", "secrets", multiple=True, metavar="NAME", help="A build secret; repeatable."),
            click.option(
                "--supersede/--no-supersede",
                default=None,
                help="Whether a newer commit of a branch ends older builds (default: yes).",
            ),
            click.option(
                "--allow-forks",
                multiple=True,
                type=click.Choice(ALLOWANCES),
                help="What pull requests from forks may have; repeatable (default: nothing).",
            ),
            click.option("--webhook-secret", metavar="NAME", help="In the vault: what the forge signs with."),
            click.option("--forge-token", metavar="NAME", help="In the vault: what commit statuses are set with."),
            click.option("--forge-url", metavar="URL", help="The forge's API, if it is not at the usual place."),
        ]
    ):
        command = option(command)
    return command


@source.command(epilog=ADD_EPILOG)
@click.argument("name")
@click.option("--repository", required=True, metavar="URL", help="An https, ssh or git address.")
@_fields
@json_option
@server_options
@debug_option
def add(name: str, repository: str, as_json: bool, **options: Any) -> None:
    """Declare source NAME. Without a branch, tag or pull request every branch is built."""
    from blacktree.cli.connection import ask
    from blacktree.client.sources import add_source

    made = ask(lambda farm: add_source(farm, {"name": name, "repository": repository, **chosen(options)}))
    if as_json:
        click.echo(json.dumps(made, ensure_ascii=False))
        return
    click.echo(f"source {made['name']} declared; its webhook goes to /api/v1/webhooks/{made['forge']}/{made['name']}")
    if not made["webhook_secret"]:
        click.echo("it takes no webhooks before it has a --webhook-secret", err=True)


@source.command(name="list", epilog="\b\nExample:\n  blacktree source list --json\n")
@json_option
@server_options
@debug_option
def list_(as_json: bool) -> None:
    """List the sources."""
    from blacktree.cli.connection import ask
    from blacktree.cli.table import print_table
    from blacktree.client.sources import sources

    found = ask(sources)
    if as_json:
        click.echo(json.dumps({"sources": found}, ensure_ascii=False))
        return
    if not found:
        click.echo("no sources; declare one with `blacktree source add`", err=True)
        return
    rows = [("SOURCE", "FORGE", "REPOSITORY", "BUILDS", "NOTE")]
    for each in found:
        rows.append((each["name"], each["forge"], each["repository"], builds(each), note(each)))
    print_table(rows)


@source.command(epilog="\b\nExample:\n  blacktree source show app --json\n")
@click.argument("name", shell_complete=source_name)
@json_option
@server_options
@debug_option
def show(name: str, as_json: bool) -> None:
    """Show source NAME whole."""
    from blacktree.cli.connection import ask
    from blacktree.cli.wording import printed
    from blacktree.client.sources import source as get_source

    found = ask(lambda farm: get_source(farm, name))
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    for key, value in found.items():
        if value not in (None, [], {}, False) or key == "supersede":
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            click.echo(printed(f"{key:<15} {text}", sys.stdout))


@source.command(
    epilog="\b\nExamples:\n  blacktree source edit app --branch main\n  blacktree source edit app --clear tags\n"
)
@click.argument("name", shell_complete=source_name)
@click.option("--repository", metavar="URL", help="An https, ssh or git address.")
@_fields
@click.option("--clear", multiple=True, type=click.Choice(list(CLEARED)), help="Empty this field; repeatable.")
@json_option
@server_options
@debug_option
def edit(name: str, repository: str | None, clear: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Change source NAME: what is given replaces what was there."""
    from blacktree.cli.connection import ask
    from blacktree.client.sources import edit_source

    changes = {field: CLEARED[field] for field in clear} | chosen(options)
    if repository is not None:
        changes["repository"] = repository
    if not changes:
        raise click.UsageError("nothing to change was given")
    made = ask(lambda farm: edit_source(farm, name, changes))
    click.echo(json.dumps(made, ensure_ascii=False) if as_json else f"source {made['name']} changed")


@source.command(epilog="\b\nExample:\n  blacktree source remove app\n")
@click.argument("name", shell_complete=source_name)
@json_option
@server_options
@debug_option
def remove(name: str, as_json: bool) -> None:
    """Remove source NAME. Jobs that it made go on."""
    from blacktree.cli.connection import ask
    from blacktree.client.sources import remove_source

    was = ask(lambda farm: remove_source(farm, name))
    click.echo(json.dumps(was, ensure_ascii=False) if as_json else f"source {was['name']} removed")


def chosen(options: dict[str, Any]) -> dict[str, Any]:
    """The fields that were given on the command line."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if value is None or value == ():
            continue
        if name in ("spec", "run"):
            found[name] = _read_object(name, value)
        else:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


def _read_object(name: str, file: Any) -> dict[str, Any]:
    try:
        value = json.loads(file.read())
    except ValueError as error:
        raise click.BadParameter(f"{file.name} is not valid JSON: {error}", param_hint=f"--{name}") from None
    if not isinstance(value, dict):
        raise click.BadParameter(f"{file.name} holds no JSON object", param_hint=f"--{name}")
    return value


def builds(each: dict[str, Any]) -> str:
    """What a source builds, short."""
    parts = list(each["branches"]) + [f"tag {tag}" for tag in each["tags"]]
    if each["pull_requests"]:
        parts.append("pull requests")
    return ", ".join(parts) or "every branch"


def note(each: dict[str, Any]) -> str:
    """What is special about it."""
    notes = ["configured"] if each["configured"] else []
    if not each["webhook_secret"]:
        notes.append("takes no webhooks: no webhook secret")
    return ", ".join(notes)
