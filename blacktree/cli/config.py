"""`blacktree config`: the effective configuration, the origin of each value, secrets as `***`."""

import os
import sys
from typing import Any

import click

from blacktree.cli.options import config_option, debug_option, json_option

EPILOG = """\b
Examples:
  blacktree config
  blacktree config --config /etc/blacktree.toml --json
"""


@click.command(epilog=EPILOG)
@config_option
@json_option
@debug_option
def config(config_file: str | None, as_json: bool) -> None:
    """Show every setting, its value and where that came from. Passwords are shown as ***."""
    import json

    from blacktree.config import load

    values, origins = load(config_file)
    shown = describe(values, origins)
    if as_json:
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    colour = sys.stdout.isatty()
    for section, keys in shown.items():
        click.echo(f"[{section}]")
        for key, entry in keys.items():
            text = f"{key} = {json.dumps(entry['value'], ensure_ascii=False)}"
            origin = f"# {entry['origin']}"
            click.echo(f"{text:<52} {click.style(origin, dim=True) if colour else origin}")
        click.echo()


def describe(values: Any, origins: dict[tuple[str, str], str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Section → key → `{"value", "origin"}`, with secrets masked."""
    import msgspec

    from blacktree.config import default_state_directory

    plain: dict[str, dict[str, Any]] = msgspec.to_builtins(values)
    for part in ("orchestrator", "worker"):
        if not plain[part]["state_directory"]:
            plain[part]["state_directory"] = default_state_directory(os.environ, part)
    if not plain["worker"]["engine"] and (engine := os.environ.get("DOCKER_HOST")):
        plain["worker"]["engine"] = engine
        origins = origins | {("worker", "engine"): "environment DOCKER_HOST"}
    return {
        section: {
            key: {
                "value": _masked(section, key, value),
                "origin": origins[section, key],
            }
            for key, value in keys.items()
        }
        for section, keys in plain.items()
    }


def _masked(section: str, key: str, value: Any) -> Any:
    from blacktree.config import SECRET_KEYS

    if section == "notify":
        # Whoever knows the address of a chat's hook can write there.
        scheme, _, rest = value["url"].partition("://")
        host = rest.partition("/")[0].partition("?")[0]
        return value | {"url": f"{scheme}://{host}{'' if host == rest else '/***'}"}
    return mask(value) if key in SECRET_KEYS and isinstance(value, str) else value


def mask(url: str) -> str:
    """An address with its password, and any secret-looking query value, as `***`.

    >>> mask("amqp://user:pa/ss@host/vhost")
    'amqp://user:***@host/vhost'
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        # Not an address at all: a password pasted in the wrong place must not be shown either.
        return "***" if url else ""
    # The last `@`: people forget to escape the ones in their passwords, and `/` and `?` too.
    login, at, place = rest.rpartition("@")
    place, _, query = place.partition("?")
    rest = place
    if at:
        user, colon, _ = login.partition(":")
        rest = f"{user}:***@{place}" if colon else f"{user}@{place}"
    if query:
        pairs = [pair.partition("=") for pair in query.split("&")]
        rest += "?" + "&".join(f"{key}={'***' if 'pass' in key.lower() else value}" for key, _, value in pairs)
    return f"{scheme}://{rest}"
