"""The options that say how an image is run, and the `run` object they make."""

import json
import re
import shlex
from collections.abc import Callable
from typing import Any, TypeVar

import click

from blacktree.cli.options import Duration, KeyValue

F = TypeVar("F", bound=Callable[..., Any])

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_NAMES = (
    "name",
    "run_file",
    "ports",
    "env",
    "run_secrets",
    "volumes",
    "command",
    "health_http",
    "health_tcp",
    "health_command",
    "start_seconds",
    "replicas",
    "memory",
    "cpus",
    "pids",
    "restart",
    "strategy",
    "drain_seconds",
    "settle_seconds",
    "failover_seconds",
)


def parse_size(text: str) -> int:
    """Bytes from `268435456`, `256m`, `1.5g`. Raises `ValueError`."""
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is not a size")
    return int(float(found[1]) * _UNITS[found[2]])


class Size(click.ParamType[int]):
    """A size in bytes on the command line."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else parse_size(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a size: use bytes, or a form such as 256m, 2g", param, ctx)


class PortPair(click.ParamType[dict[str, Any]]):
    """`[ADDRESS:]HOST:CONTAINER`."""

    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        head, _, container = str(value).removesuffix("/tcp").rpartition(":")
        address, _, host = head.rpartition(":")
        if not (host.isdigit() and container.isdigit()):
            self.fail(f"{value!r} is not [ADDRESS:]HOST:CONTAINER, e.g. 8080:80", param, ctx)
        port: dict[str, Any] = {"host": int(host), "container": int(container)}
        return port | ({"address": address.strip("[]")} if address else {})


class VolumePair(click.ParamType[dict[str, Any]]):
    """`SOURCE:TARGET[:ro]`."""

    name = "volume"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        parts = str(value).split(":")
        if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
            self.fail(f"{value!r} is not SOURCE:TARGET or SOURCE:TARGET:ro", param, ctx)
        return {"source": parts[0], "target": parts[1], "read_only": parts[2:] == ["ro"]}


class HttpPlace(click.ParamType[dict[str, Any]]):
    """`PORT/PATH`."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        port, slash, path = str(value).partition("/")
        if not port.isdigit():
            self.fail(f"{value!r} is not PORT/PATH, e.g. 80/healthz", param, ctx)
        return {"port": int(port), "path": f"/{path}" if slash else "/"}


def run_options(command: F) -> F:
    """Every option of `run`; see `run_spec`."""
    for option in reversed(
        [
            click.option("--name", metavar="N", help="The deployment's name (needed, here or in the file)."),
            click.option(
                "--run-file", type=click.File("rb"), metavar="FILE.json", help="The `run` object; options win over it."
            ),
            click.option(
                "-p", "--port", "ports", multiple=True, type=PortPair(), metavar="[ADDR:]HOST:CONTAINER",
                help="A front port on the worker (default address 127.0.0.1); repeatable.",
            ),
            click.option(
                "-e", "--env", "env", multiple=True, metavar="K=V", type=KeyValue(from_environment=True),
                help="A variable, not for what is secret; repeatable.",
            ),
            click.option("--secret", "run_secrets", multiple=True, metavar="NAME", help="A run secret; repeatable."),
            click.option(
                "-v", "--volume", "volumes", multiple=True, type=VolumePair(), metavar="SRC:DST[:ro]",
                help="A volume by name, or a path that the workers allow; repeatable.",
            ),
            click.option("--command", metavar="'CMD ARG'", help="Instead of the image's own."),
            click.option("--health-http", type=HttpPlace(), metavar="PORT/PATH", help="Healthy while this answers."),
            click.option(
                "--health-tcp", type=click.IntRange(1, 65535), metavar="PORT", help="Healthy while one connects."
            ),
            click.option("--health-command", metavar="'CMD ARG'", help="Healthy while this succeeds in the container."),
            click.option(
                "--start", "start_seconds", type=Duration(), metavar="DURATION",
                help="How long it may take to become healthy (default 60s).",
            ),
            click.option("--replicas", type=click.IntRange(1, 100), metavar="N", help="Containers (default 1)."),
            click.option(
                "--memory", type=Size(), metavar="SIZE", help="Memory of each container, e.g. 256m (default 512m)."
            ),
            click.option("--cpus", type=float, metavar="N", help="Processors of each container (default 1)."),
            click.option("--pids", type=click.IntRange(1), metavar="N", help="Processes of each (default 512)."),
            click.option(
                "--restart", type=click.Choice(["always", "on-failure", "never"]),
                help="When a container ends (default always).",
            ),
            click.option(
                "--strategy", type=click.Choice(["replace", "recreate"]), help="recreate: the old one stops first."
            ),
            click.option(
                "--drain", "drain_seconds", type=Duration(), metavar="DURATION",
                help="How long the old version stands by (default 10s).",
            ),
            click.option(
                "--settle", "settle_seconds", type=Duration(), metavar="DURATION",
                help="How long it must stay healthy before it takes over (default 0s).",
            ),
            click.option(
                "--failover", "failover_seconds", type=Duration(), metavar="DURATION",
                help="Start elsewhere when its worker is silent for so long (default: never).",
            ),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


def run_spec(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `run` object from these options, and the options that are left. Raises `UsageError`."""
    given = {name: options[name] for name in _NAMES}
    rest = {name: value for name, value in options.items() if name not in given}
    run = _from_file(given["run_file"])
    for name, field in (
        ("name", "name"), ("replicas", "replicas"), ("memory", "memory_bytes"), ("cpus", "cpus"), ("pids", "pids"),
        ("failover_seconds", "failover_seconds"),
    ):  # fmt: skip
        if given[name] is not None:
            run[field] = given[name]
    for name, field in (("ports", "ports"), ("run_secrets", "secrets"), ("volumes", "volumes")):
        if given[name]:
            run[field] = list(given[name])
    if given["env"]:
        run["env"] = {**run.get("env", {}), **dict(given["env"])}
    if given["command"]:
        run["command"] = shlex.split(given["command"])
    checks = {
        "http": given["health_http"],
        "tcp": {"port": given["health_tcp"]} if given["health_tcp"] else None,
        "command": shlex.split(given["health_command"]) if given["health_command"] else None,
    }
    _merge(run, "health", {**checks, "start_seconds": given["start_seconds"]})
    _merge(run, "restart", {"on_exit": given["restart"]})
    strategy = {"kind": given["strategy"]} | {name: given[name] for name in ("drain_seconds", "settle_seconds")}
    _merge(run, "strategy", strategy)
    if "name" not in run:
        raise click.UsageError("a deployment needs a name: --name NAME")
    return run, rest


def _merge(run: dict[str, Any], field: str, values: dict[str, Any]) -> None:
    chosen = {name: value for name, value in values.items() if value is not None}
    if chosen:
        run[field] = {**run.get(field, {}), **chosen}


def _from_file(file: Any) -> dict[str, Any]:
    if file is None:
        return {}
    with file:
        body = file.read()
    try:
        value = json.loads(body)
    except ValueError as error:
        raise click.UsageError(f"--run-file {file.name}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.UsageError(f"--run-file {file.name}: expected an object")
    return value
