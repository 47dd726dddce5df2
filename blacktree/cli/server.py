"""Which server a client command talks to, and as whom: flags, environment, then a farm on this machine."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import click

from blacktree.cli.exits import Unreachable
from blacktree.cli.options import SERVER, TOKEN
from blacktree.cli.state import SERVER_FILE, TOKEN_FILE, is_locked, read_token, running_farms
from blacktree.config import default_state_directory
from blacktree.errors import BadRequest

ADVICE = (
    "start a farm with `blacktree up`, or name one: --server URL and --token TOKEN "
    "(or BLACKTREE_SERVER and BLACKTREE_TOKEN)"
)


class Endpoint(NamedTuple):
    """`url` is `http(s)://host:port`; `state` the farm's directory if it was found there."""

    url: str
    token: str
    state: Path | None = None

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"


def endpoint() -> Endpoint:
    """The server and token of the current command. Raises `BadRequest` or `Unreachable` with advice."""
    meta = click.get_current_context().meta
    return resolve(meta.get(SERVER), meta.get(TOKEN), os.environ)


def resolve(server: str | None, token: str | None, environ: Mapping[str, str]) -> Endpoint:
    """As `endpoint`, from what was given."""
    server = server or environ.get("BLACKTREE_SERVER") or None
    token = token or environ.get("BLACKTREE_TOKEN") or None
    if server is not None and token is not None:
        return Endpoint(url_of(server), token)
    states = [state for state in candidates(environ) if (state / SERVER_FILE).exists()]
    if server is not None:
        # A farm here may be the very one that was named: then its token file is ours to read.
        url = url_of(server)
        for state in states:
            if _address(state) == url:
                return Endpoint(url, read_token(state / TOKEN_FILE), state)
        return Endpoint(url, "")
    if named := environ.get("BLACKTREE_ORCHESTRATOR_STATE_DIRECTORY"):
        # Whoever names one means no other that happens to run.
        states = [state for state in states if state == Path(named).resolve()]
        if not states:
            raise Unreachable(f"no farm runs on the state directory {named}", advice=ADVICE)
    running = [state for state in states if is_locked(state)]
    if len(running) > 1 and running[0] not in _defaults(environ):
        names = ", ".join(f"{_address(state)} ({state})" for state in running)
        raise BadRequest(
            f"{len(running)} farms run on this machine: {names}",
            code="which_server",
            advice="name one with --server URL or BLACKTREE_SERVER",
        )
    found = next(iter(running or states), None)
    if found is None:
        raise Unreachable("no server is named and no farm runs on this machine", advice=ADVICE)
    return Endpoint(_address(found), token or read_token(found / TOKEN_FILE), found)


def candidates(environ: Mapping[str, str]) -> list[Path]:
    """State directories to look at, best first, each once."""
    return list(dict.fromkeys([*_defaults(environ), *running_farms(environ)]))


def _defaults(environ: Mapping[str, str]) -> list[Path]:
    named = environ.get("BLACKTREE_ORCHESTRATOR_STATE_DIRECTORY")
    paths = [named] if named else []
    # Not `$STATE_DIRECTORY`: that is systemd speaking to a daemon, never to a client.
    home = {key: value for key, value in environ.items() if key != "STATE_DIRECTORY"}
    paths += [default_state_directory(home, part) for part in ("up", "orchestrator")]
    return [Path(path).resolve() for path in paths]


def _address(state: Path) -> str:
    return (state / SERVER_FILE).read_text(encoding="utf-8").strip()


def url_of(text: str) -> str:
    """`host:port` or an http, https, ws, wss address as `http(s)://host:port`. Raises `BadRequest`."""
    from urllib.parse import urlsplit

    full = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(full)
        port = parts.port
    except ValueError:
        port, parts = None, urlsplit("")
    scheme = {"http": "http", "ws": "http", "https": "https", "wss": "https"}.get(parts.scheme)
    if scheme is None or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise BadRequest(
            f"{text!r} is not a server's address",
            code="server_address",
            advice="use a form such as http://127.0.0.1:8080 or https://farm.example",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
