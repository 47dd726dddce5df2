"""`blacktree token …` and `blacktree audit`: who may come in, and who did what."""

import json
from typing import Any

import click

from blacktree.cli.completing import token_name
from blacktree.cli.options import Duration, debug_option, json_option, server_options

CREATE_EPILOG = """\b
Examples:
  blacktree token create ci --role submit --repository 'github.com/owner/*' --expires 90d
  BLACKTREE_TOKEN=$(blacktree token create prometheus --role view)

On a pipe the secret stands alone on stdout. It is shown once: the farm keeps a hash.

Roles: `view` reads, `submit` also builds, cancels and deploys, `admin` also does the rest. Patterns: `*` is any text
within one part of the path, `**` any number of parts; without --repository the token is for the whole farm.
"""


class Lifetime(Duration):
    """A DURATION with days: `90d`, too."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip().lower()
        if text.endswith("d") and text[:-1].isdigit():
            return float(text[:-1]) * 86400
        return super().convert(value, param, ctx)


@click.group(epilog="\b\nExamples:\n  blacktree token create ci --role submit\n  blacktree token list\n")
@debug_option
def token() -> None:
    """Say who may come in at the door, for what, and how long."""


@token.command(epilog=CREATE_EPILOG)
@click.argument("name")
@click.option("--role", type=click.Choice(["view", "submit", "admin"]), required=True, help="What its bearer may do.")
@click.option(
    "--repository", "repositories", multiple=True, metavar="PATTERN", help="Only for these; repeatable. Default: all."
)
@click.option("--expires", metavar="DURATION", type=Lifetime(), help="90d, 12h, …; default: when it is revoked.")
@json_option
@server_options
@debug_option
def create(name: str, role: str, repositories: tuple[str, ...], expires: float | None, as_json: bool) -> None:
    """Make a token called NAME."""
    import sys

    from blacktree.cli.connection import ask
    from blacktree.client.tokens import create_token

    made = ask(lambda farm: create_token(farm, name, role, repositories=repositories, seconds=expires))
    if as_json:
        click.echo(json.dumps(made, ensure_ascii=False))
        return
    click.echo(made["secret"])
    if sys.stdout.isatty():
        click.echo(f"this is token {made['token']['id']}; it is not shown again", err=True)


@token.command("list", epilog="\b\nExample:\n  blacktree token list --json\n")
@click.option("--all", "with_ended", is_flag=True, help="Expired and revoked ones of the last month, too.")
@json_option
@server_options
@debug_option
def list_(with_ended: bool, as_json: bool) -> None:
    """List the tokens, without what their bearers show."""
    from blacktree.cli.connection import ask
    from blacktree.cli.jobs import age
    from blacktree.cli.table import print_table
    from blacktree.client.tokens import list_tokens

    found = ask(list_tokens)["tokens"]
    tokens = [each for each in found if with_ended or each["state"] == "valid"]
    if as_json:
        click.echo(json.dumps({"tokens": tokens}, ensure_ascii=False))
        return
    rows = [("ID", "NAME", "ROLE", "REPOSITORIES", "CREATED", "BY", "ENDS")]
    for each in tokens:
        ends = each["state"] if each["state"] != "valid" else (each["expires_at"] or "never")
        created = age(each["created_at"]) if each["created_at"] else ""
        repositories = ", ".join(each["repositories"]) or "all"
        rows.append((each["id"], each["name"], each["role"], repositories, created, each["created_by"], ends))
    print_table(rows, colours={}, column=0)


@token.command(epilog="\b\nExample:\n  blacktree token revoke ci\n")
@click.argument("name", shell_complete=token_name)
@json_option
@server_options
@debug_option
def revoke(name: str, as_json: bool) -> None:
    """End the token NAME (or of this id) at once, with its browser sessions and open connections."""
    from blacktree.cli.connection import ask
    from blacktree.client.tokens import revoke_token

    ended = ask(lambda farm: revoke_token(farm, name))
    click.echo(json.dumps(ended, ensure_ascii=False) if as_json else f"revoked token {ended['id']} ({ended['name']})")


@token.command(epilog="\b\nExamples:\n  blacktree token link\n  blacktree token link --for reviewer\n")
@click.option(
    "--for",
    "name",
    metavar="TOKEN",
    shell_complete=token_name,
    help="The id or name of another token (for admins).",
)
@json_option
@server_options
@debug_option
def link(name: str | None, as_json: bool) -> None:
    """Print a link that lets one browser in, once, within ten minutes, with your token or another."""
    from blacktree.cli.connection import ask
    from blacktree.client.tokens import login_link

    made = ask(lambda farm: login_link(farm, name))
    click.echo(json.dumps(made, ensure_ascii=False) if as_json else made["url"])


@click.command(epilog="\b\nExamples:\n  blacktree audit\n  blacktree audit --by ci --limit 1000 --json\n")
@click.option("--limit", metavar="N", type=click.IntRange(1, 100_000), default=50, help="How many (default 50).")
@click.option("--by", metavar="TOKEN", help="Only what this token did, by id or name.")
@json_option
@server_options
@debug_option
def audit(limit: int, by: str | None, as_json: bool) -> None:
    """Show who did what at the door, newest first."""
    from blacktree.cli.connection import ask
    from blacktree.cli.table import print_table

    entries = ask(lambda farm: _entries(farm, limit, by))
    if as_json:
        click.echo(json.dumps({"entries": entries}, ensure_ascii=False))
        return
    rows = [("TIME", "WHO", "FROM", "WHAT", "ON", "OUTCOME")]
    for each in entries:
        where = f"{each['address']} ({each['via']})"
        on = " ".join(part for part in (each["target"], each["repository"]) if part)
        rows.append(
            (each["time"][:19], f"{each['actor']} ({each['token']})", where, each["action"], on, each["outcome"])
        )
    print_table(rows, colours={}, column=0)


async def _entries(farm: Any, limit: int, by: str | None) -> list[dict[str, Any]]:
    from blacktree.client.tokens import audit_page

    found: list[dict[str, Any]] = []
    before: int | None = None
    while len(found) < limit:
        page = await audit_page(farm, before=before, limit=1000 if by else min(1000, limit - len(found)))
        found += [each for each in page["entries"] if by in (None, each["token"], each["actor"])]
        before = page["before"]
        if before is None:
            break
    return found[:limit]
