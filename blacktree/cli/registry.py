"""`blacktree registry …`: logins that builds pull and push with, kept as secrets of the farm."""

import json

import click

from blacktree.cli.options import debug_option, json_option, server_options
from blacktree.cli.secret import scope_options, show, typed

LOGIN_EPILOG = """\b
Examples:
  blacktree registry login ghcr.io --username owner              (asks for the password)
  pass show registry | blacktree registry login registry.example:5000 --username farm --repository 'github.com/owner/*'
  blacktree registry login docker.io --username owner < token-file

It goes before the workers' own logins (`docker login`, credential helpers).
"""


@click.group(epilog="\b\nExamples:\n  blacktree registry login ghcr.io --username owner\n  blacktree registry list\n")
@debug_option
def registry() -> None:
    """Log the farm in to registries: every job in a login's scope can pull and push with it."""


@registry.command(epilog=LOGIN_EPILOG)
@click.argument("host")
@click.option("-u", "--username", required=True, metavar="USER")
@scope_options
@json_option
@server_options
@debug_option
def login(host: str, username: str, sources: tuple[str, ...], repositories: tuple[str, ...], as_json: bool) -> None:
    """Keep a login for HOST; the password (or token) comes on stdin, or is asked for. It is not tried out."""
    from blacktree.cli.connection import ask
    from blacktree.client.secrets import put_login
    from blacktree.errors import BadRequest

    try:
        password = typed(f"Password of {username} at {host}").decode()
    except UnicodeDecodeError:
        raise BadRequest("the password is not UTF-8 text") from None
    scope = {"sources": sources, "repositories": repositories}
    kept = ask(lambda farm: put_login(farm, host, username, password, **scope))
    click.echo(json.dumps(kept, ensure_ascii=False) if as_json else f"kept the login for {kept['name']}")


@registry.command(epilog="\b\nExample:\n  blacktree registry logout ghcr.io\n")
@click.argument("host")
@json_option
@server_options
@debug_option
def logout(host: str, as_json: bool) -> None:
    """Forget the farm's login for HOST."""
    from blacktree.cli.connection import ask
    from blacktree.client.secrets import remove_secret

    ask(lambda farm: remove_secret(farm, "registry", host))
    click.echo("{}" if as_json else f"forgot the login for {host}")


@registry.command("list", epilog="\b\nExample:\n  blacktree registry list\n")
@json_option
@server_options
@debug_option
def list_(as_json: bool) -> None:
    """List the registries that the farm has logins for."""
    show("registry", as_json=as_json)
