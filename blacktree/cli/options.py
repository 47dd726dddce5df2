"""Options and argument forms that several commands share."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

DEBUG = "blacktree.debug"
SERVER = "blacktree.server"
TOKEN = "blacktree.token"

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def parse_duration(text: str) -> float:
    """Seconds from `90`, `90s`, `15m`, `2h` or `1h30m`. Raises `ValueError`."""
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None or not any(found.groups()):
        raise ValueError(f"{text!r} is not a duration")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


class Duration(click.ParamType[float]):
    """A DURATION of the command line."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_duration(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a duration: use seconds, or a form such as 90s, 15m, 2h", param, ctx)


class Moment(click.ParamType[datetime]):
    """A moment: so long ago (`10m`), or RFC 3339; without an offset it is this machine's time."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        try:
            return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
        except (ValueError, OverflowError):
            pass
        try:
            return datetime.fromisoformat(text.upper() if text[-1:] == "z" else text).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time: use a form such as 10m, 2h or 2026-01-31T12:00:00Z", param, ctx)


class KeyValue(click.ParamType[tuple[str, str]]):
    """`KEY=VALUE`; with `from_environment`, a bare KEY takes its value from the environment, as `docker build` does."""

    name = "key=value"

    def __init__(self, *, from_environment: bool = False) -> None:
        self._from_environment = from_environment

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        import os

        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not key:
            self.fail(f"{value!r} has no name: use NAME=VALUE", param, ctx)
        if equals:
            return key, text
        if self._from_environment and key in os.environ:
            return key, os.environ[key]
        missing = " (and the environment has no such variable)" if self._from_environment else ""
        self.fail(f"{value!r} has no value: use {key}=VALUE{missing}", param, ctx)


def _remember(key: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if value:
            ctx.meta[key] = value
        return value

    return callback


def debug_option(command: F) -> F:
    """`--debug`, before or after the command's name."""
    return click.option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_remember(DEBUG),
        help="Show the traceback of an error.",
    )(command)


def server_options(command: F) -> F:
    """`--server` and `--token`, before or after the command's name."""
    token = click.option(
        "--token",
        metavar="TOKEN",
        expose_value=False,
        callback=_remember(TOKEN),
        help="Who you are there (default: $BLACKTREE_TOKEN, else the file of a farm on this machine).",
    )
    server = click.option(
        "--server",
        metavar="URL",
        expose_value=False,
        callback=_remember(SERVER),
        help="The door's address (default: $BLACKTREE_SERVER, else a farm that runs on this machine).",
    )
    return server(token(command))


def json_option(command: F) -> F:
    """`--json`: programs read stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else on stdout.")(command)


def config_option(command: F) -> F:
    """`--config FILE`: settings from a TOML file."""
    return click.option(
        "--config",
        "config_file",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        help="Settings in TOML; environment and flags win over it.",
    )(command)
