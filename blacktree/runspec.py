"""What a job's `run` asks for: how containers of its image are kept running. Units are in the names."""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from blacktree.errors import BadRequest

DeploymentName = Annotated[str, Meta(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")]
SecretName = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9._-]+\Z")]
PortNumber = Annotated[int, Meta(ge=1, le=65535)]

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class Port(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A front port on the worker, led to a port in the container. `address`: where the worker listens."""

    container: PortNumber
    host: PortNumber
    address: str = "127.0.0.1"
    protocol: Literal["tcp"] = "tcp"


class Volume(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`source`: a volume's name, or an absolute path under one that the worker allows."""

    source: Annotated[str, Meta(min_length=1, max_length=1024)]
    target: Annotated[str, Meta(min_length=2, max_length=1024, pattern=r"^/")]
    read_only: bool = False


class HttpCheck(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Healthy while a GET answers 200 to 399."""

    port: PortNumber
    path: Annotated[str, Meta(max_length=1024, pattern=r"^/")] = "/"


class TcpCheck(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Healthy while a connection is taken."""

    port: PortNumber


class Health(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """At most one of `http`, `tcp`, `command` (argv, run in the container; healthy while its exit code is 0).

    `start_seconds`: how long a new container may take to become healthy; `retries`: how many checks in a row may fail
    afterwards.
    """

    http: HttpCheck | None = None
    tcp: TcpCheck | None = None
    command: Annotated[list[Annotated[str, Meta(max_length=4096)]], Meta(min_length=1, max_length=64)] | None = None
    interval_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0
    timeout_seconds: Annotated[float, Meta(ge=0.1, le=600)] = 3.0
    retries: Annotated[int, Meta(ge=1, le=100)] = 3
    start_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 60.0


class Restart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`on_exit`: when a container that has ended is started again; at most `most` times in `window_seconds`."""

    on_exit: Literal["always", "on-failure", "never"] = "always"
    first_seconds: Annotated[float, Meta(ge=0.1, le=600)] = 1.0
    limit_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 60.0
    most: Annotated[int, Meta(ge=0, le=1000)] = 10
    window_seconds: Annotated[float, Meta(ge=1, le=86400)] = 600.0


class Strategy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`replace`: the new version becomes healthy beside the old one, takes over, and the old one drains and stops.
    `recreate`: the old one is stopped first (for what must not run twice)."""

    kind: Literal["replace", "recreate"] = "replace"
    drain_seconds: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    stop_seconds: Annotated[float, Meta(ge=0, le=600)] = 10.0
    settle_seconds: Annotated[float, Meta(ge=0, le=600)] = 0.0


class RunSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A deployment as asked for.

    `memory_bytes`, `cpus`, `pids`: limits of each container. `failover_seconds`: after so long without a sign of life
    from its worker the deployment starts elsewhere (and the worker, if it lives, has stopped it by then); None: never.
    """

    name: DeploymentName
    ports: Annotated[list[Port], Meta(max_length=32)] = []
    env: Annotated[dict[str, Annotated[str, Meta(max_length=32768)]], Meta(max_length=256)] = {}
    secrets: Annotated[list[SecretName], Meta(max_length=64)] = []
    volumes: Annotated[list[Volume], Meta(max_length=32)] = []
    command: Annotated[list[Annotated[str, Meta(max_length=4096)]], Meta(max_length=256)] = []
    memory_bytes: Annotated[int, Meta(ge=6 << 20)] = 512 << 20
    cpus: Annotated[float, Meta(gt=0, le=1024)] = 1.0
    pids: Annotated[int, Meta(ge=1, le=1 << 20)] = 512
    health: Health = Health()
    replicas: Annotated[int, Meta(ge=1, le=100)] = 1
    restart: Restart = Restart()
    strategy: Strategy = Strategy()
    failover_seconds: Annotated[float, Meta(ge=10, le=86400)] | None = None


def check_run(run: RunSpec, where: str = "spec.run") -> RunSpec:
    """The run spec itself, if it keeps the rules that types cannot say. Raises `BadRequest` with the path."""
    for name in run.env:
        if not _ENVIRONMENT_NAME.match(name):
            raise _refused(f"{where}.env.{name}", "is not a name that an environment can hold")
        if "\0" in run.env[name]:
            raise _refused(f"{where}.env.{name}", "contains a NUL")
    if len({(port.address, port.host) for port in run.ports}) != len(run.ports):
        raise _refused(f"{where}.ports", "names a host port twice")
    if len({volume.target for volume in run.volumes}) != len(run.volumes):
        raise _refused(f"{where}.volumes", "names a target twice")
    for index, volume in enumerate(run.volumes):
        if ".." in volume.source.split("/") or ".." in volume.target.split("/"):
            raise _refused(f"{where}.volumes[{index}]", "must not contain `..`")
    checks = [name for name in ("http", "tcp", "command") if getattr(run.health, name) is not None]
    if len(checks) > 1:
        raise _refused(f"{where}.health", f"has {' and '.join(checks)}: at most one")
    return run


def _refused(path: str, why: str) -> BadRequest:
    return BadRequest(f"{path}: {why}", path=path, code="invalid")
