"""`blacktree secret …`: the farm's secrets. Values come from a file, stdin or a prompt, never from the command line."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from blacktree.cli.options import debug_option, json_option, server_options

F = TypeVar("F", bound=Callable[..., Any])

KINDS = ["build", "registry", "run", "webhook", "forge"]

SET_EPILOG = """\b
Examples:
  blacktree secret set build npm-token                           (asks for the value)
  pass show npm | blacktree secret set build npm-token --repository 'github.com/owner/*'
  blacktree secret set run app-key --from-file app.pem --source app

Without --source and --repository every job gets it that names it. With several of one sort, one must fit; with both
sorts, both must. Patterns: `*` is any text within one part of the path, `**` any number of parts; without a scheme
they fit https and ssh.
"""

ROTATE_EPILOG = """\b
Examples:
  blacktree secret rotate-key
  blacktree secret rotate-key --new-key-file /etc/blacktree/secrets-key-2

At every moment the old and the new key both open everything, until the end. After a crash, give it again.
"""

NEW_KEY_EPILOG = """\b
Examples:
  blacktree secret new-key /etc/blacktree/secrets-key
  blacktree secret new-key --before-old /etc/blacktree/secrets-key       (a credential: first half of a rotation)
"""


@click.group(epilog="\b\nExamples:\n  blacktree secret set build npm-token\n  blacktree secret list\n")
@debug_option
def secret() -> None:
    """Keep what builds, pushes and deployments need to know and nobody else may: sealed, and never shown again."""


def scope_options(command: F) -> F:
    """`--source` and `--repository`: who gets it."""
    repository = click.option(
        "--repository", "repositories", multiple=True, metavar="PATTERN", help="Only for these; repeatable."
    )
    source = click.option("--source", "sources", multiple=True, metavar="NAME", help="Only for its jobs; repeatable.")
    return source(repository(command))


@secret.command("set", epilog=SET_EPILOG)
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option("--from-file", metavar="FILE", type=click.Path(dir_okay=False), help="Its whole content is the value.")
@scope_options
@json_option
@server_options
@debug_option
def set_(
    kind: str, name: str, from_file: str | None, sources: tuple[str, ...], repositories: tuple[str, ...], as_json: bool
) -> None:
    """Give the secret NAME of this KIND a value, and say who gets it; an earlier value and scope are replaced.

    The value: a file's whole content; else what comes on stdin, without the newline at the end of a single line; else,
    on a terminal, what is typed at a prompt.
    """
    from blacktree.cli.connection import ask
    from blacktree.client.secrets import put_secret

    if kind == "registry" and not from_file and sys.stdin.isatty():
        raise click.UsageError(f"a login has a user and a password: use `blacktree registry login {name}`")
    value = _file(from_file) if from_file else typed(f"Value of {name}")
    kept = ask(lambda farm: put_secret(farm, kind, name, value, sources=sources, repositories=repositories))
    if as_json:
        click.echo(json.dumps(kept, ensure_ascii=False))
    else:
        click.echo(f"kept the {kind} secret {kept['name']}{_for_whom(kept)}")


@secret.command("list", epilog="\b\nExample:\n  blacktree secret list --json\n")
@json_option
@server_options
@debug_option
def list_(as_json: bool) -> None:
    """List the secrets: names, scopes and times; no values."""
    show(None, as_json=as_json)


@secret.command(epilog="\b\nExample:\n  blacktree secret remove build npm-token\n")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@json_option
@server_options
@debug_option
def remove(kind: str, name: str, as_json: bool) -> None:
    """Forget a secret. Needs no key."""
    from blacktree.cli.connection import ask
    from blacktree.client.secrets import remove_secret

    ask(lambda farm: remove_secret(farm, kind, name))
    click.echo("{}" if as_json else f"removed the {kind} secret {name}")


@secret.command("rotate-key", epilog=ROTATE_EPILOG)
@click.option(
    "--new-key-file",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="The new key's file, on the orchestrator's machine; made if it is not there. Default: the farm's own file.",
)
@json_option
@server_options
@debug_option
def rotate_key(new_key_file: str | None, as_json: bool) -> None:
    """Seal every secret anew, with another key."""
    from blacktree.cipher import new_key
    from blacktree.cli.connection import ask
    from blacktree.client.secrets import rotate_key as rotate
    from blacktree.keyfile import write_keys

    path = Path(new_key_file).absolute() if new_key_file else None
    if path is not None and not path.exists():
        write_keys(path, [new_key()], fresh=True)
    done = ask(lambda farm: rotate(farm, str(path or "")))
    if as_json:
        click.echo(json.dumps(done, ensure_ascii=False))
        return
    many = "1 secret is" if done["sealed"] == 1 else f"{done['sealed']} secrets are"
    click.echo(f"{many} sealed anew; the key is now {done['key']}")
    if done["next"]:
        click.echo(f"now {done['next']}")


@secret.command("new-key", epilog=NEW_KEY_EPILOG)
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--before-old", is_flag=True, help="Put it before the key that FILE holds already.")
@debug_option
def new_key_(file: str, before_old: bool) -> None:
    """Make a key for a farm's secrets in FILE (mode 0600), for `orchestrator.secrets_key_file` or a credential."""
    from blacktree.cipher import new_key
    from blacktree.keyfile import read_keys, write_keys

    path = Path(file).absolute()
    if path.exists() and not before_old:
        raise click.UsageError(f"{file} is there already; a key that is in use must not be lost")
    old = read_keys(path) if before_old else []
    write_keys(path, [new_key(), *old], fresh=not before_old)
    if before_old:
        click.echo(f"{file} holds {len(old) + 1} keys; start the farm again, then run `blacktree secret rotate-key`")
    else:
        click.echo(f"made {file}; keep a copy where you keep passwords: without it the secrets are lost")


def typed(prompt: str) -> bytes:
    """What comes on stdin, or on a terminal at a prompt without echo."""
    if sys.stdin.isatty():
        return str(click.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True)).encode()
    # More than a value may have, by one byte: the farm then says that it is too large.
    return without_newline(sys.stdin.buffer.read(1 << 20))


def without_newline(data: bytes) -> bytes:
    """A single line without its end: `echo` and `pass` add one that is no part of a token."""
    line = data.removesuffix(b"\n").removesuffix(b"\r")
    return data if b"\n" in line else line


def show(kind: str | None, *, as_json: bool) -> None:
    """The list, of one kind or all; what is wrong with the key goes to stderr."""
    from blacktree.cli.connection import ask
    from blacktree.cli.jobs import age
    from blacktree.cli.table import print_table
    from blacktree.client.secrets import list_secrets

    found = ask(list_secrets)
    secrets = [each for each in found["secrets"] if kind in (None, each["kind"])]
    if as_json:
        click.echo(json.dumps(found | {"secrets": secrets}, ensure_ascii=False))
        return
    if found["key"]["trouble"]:
        click.echo(f"blacktree: {found['key']['trouble']}", err=True)
    if not secrets:
        what = "logins; `blacktree registry login HOST" if kind else "secrets; `blacktree secret set KIND NAME"
        click.echo(f"no {what}` adds one", err=True)
        return
    rows = [("KIND", "NAME", "SOURCES", "REPOSITORIES", "CHANGED", "NOTE")]
    for each in secrets:
        scope = [", ".join(each[what]) or "all" for what in ("sources", "repositories")]
        note = "" if each["readable"] else "cannot be opened"
        rows.append((each["kind"], each["name"], *scope, age(each["updated_at"]), note))
    print_table(rows, colours={}, column=0)


def _file(path: str) -> bytes:
    from blacktree.errors import BadRequest
    from blacktree.secretfiles import MAXIMUM_BYTES

    try:
        with Path(path).open("rb") as file:
            return file.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        raise BadRequest(f"cannot read {path}: {error.strerror}") from None


def _for_whom(kept: dict[str, Any]) -> str:
    parts = [
        f"{word} {', '.join(kept[what])}"
        for what, word in (("sources", "sources"), ("repositories", "repositories"))
        if kept[what]
    ]
    return f", for {' and '.join(parts)} alone" if parts else ""
