"""Where replicas run: the promise of an engine that keeps containers (suite: tests/contracts/containers.py).

A provider that has it says so by an attribute `containers` (see `ContainerProvider`). Everything made here bears the
owner's label and the labels of the request; another owner's containers are never seen and never touched, nor is what is
made here touched by `Provider.sweep` and `prune`: neither a container nor an image that one of them uses.

Errors: `EngineLost` where the engine does not answer (nothing is known then of what was asked), `StepFailed` where it
refuses. Cancelling is safe everywhere: a container that was being made may be there afterwards, and is listed.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

import msgspec

from blacktree.providers.base import Login
from blacktree.providers.registry.reference import parse_reference


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """`path`: a path of the engine's machine; else `volume`, a named volume that is made when it is not there."""

    target: str
    path: str = ""
    volume: str = ""
    read_only: bool = False


class ContainerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One container. Without a `command` the image's own. `ports` are published on loopback, at random ports.

    Whatever is asked: no capabilities, no new privileges, an init as process 1, no swap beyond `memory_bytes`, no
    restart by the engine, a bounded log.
    """

    name: str
    image: str
    labels: Mapping[str, str] = {}
    command: list[str] = []
    env: Mapping[str, str] = {}
    mounts: list[Mount] = []
    ports: list[int] = []
    memory_bytes: int = 512 << 20
    cpus: float = 1.0
    pids: int = 512


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A container as it stands. `ports`: where each of its published ports is reached, `(host, port)`; none when it
    does not run. `exit_code` is None until it has ended."""

    id: str
    labels: dict[str, str]
    state: Literal["created", "running", "ended"]
    image_id: str = ""
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""
    ports: dict[int, tuple[str, int]] = {}


class LogPosition(msgspec.Struct, frozen=True):
    """A place in a container's log: after the `count`-th entry that bears this `stamp` (the engine's, opaque)."""

    stamp: str
    count: int


class LogEntry(msgspec.Struct, frozen=True):
    """A piece of a container's output: bytes as they came, when, and the position behind them."""

    stream: str
    time: datetime
    data: bytes
    position: LogPosition


class LogReader(Protocol):
    """An open log. `missed`: the place to go on from is there no more, so something was lost before what comes."""

    missed: bool

    async def next(self) -> list[LogEntry]:
        """The next entries; empty at the end: the container has ended and all was read."""
        ...


class Ran(msgspec.Struct, frozen=True):
    """What a command in a container came to. `exit_code` None: it did not end in time (and may run on)."""

    exit_code: int | None
    output: bytes = b""


class Containers(Protocol):
    """Containers of one owner on one engine. Safe for many at once."""

    async def has(self, image: str) -> bool:
        """Whether the engine has this image."""
        ...

    async def pull(self, image: str, login: Login | None) -> None:
        """Fetch an image by tag or digest. `login` None: what `docker login` left for its host, if anything."""
        ...

    async def create(self, request: ContainerRequest) -> str:
        """Make a container, not yet started; its id. `StepFailed` with code `image_missing` without its image, and
        code `name_taken` where the name is in use."""
        ...

    async def start(self, container: str) -> None:
        """Start it; started already is fine."""
        ...

    async def stop(self, container: str, seconds: float) -> None:
        """Ask it to end by its stop signal (SIGTERM, if the image names no other), kill it after `seconds`; return
        once it has ended. Gone or ended is fine. Cancelled: it may run on, asked to end."""
        ...

    async def wait(self, container: str) -> Container:
        """Return when it does not run any more. Raises `NotFound` for one that is gone."""
        ...

    async def inspect(self, container: str) -> Container | None:
        """As it stands; None if it is gone."""
        ...

    async def remove(self, container: str) -> None:
        """Remove it, killed if need be, with its anonymous volumes. Gone is fine."""
        ...

    async def listed(self) -> list[Container]:
        """All of this owner, in whatever state; `ports` may be missing here."""
        ...

    async def run(self, container: str, argv: list[str], seconds: float) -> Ran:
        """Run a command in it, at most `seconds`; the first 4 KiB it printed."""
        ...

    def logs(self, container: str, after: LogPosition | None) -> AbstractAsyncContextManager[LogReader]:
        """Its output from the beginning or from `after`, followed until it ends; leaving closes it. No entry comes
        twice: the engine is asked again for everything since the stamp, and as many as `count` says are skipped."""
        ...


@runtime_checkable
class ContainerProvider(Protocol):
    """A provider whose engine also keeps containers."""

    @property
    def containers(self) -> Containers: ...


def registry_host(image: str) -> str:
    """The registry that a reference names; Docker Hub's where it names none (distribution/reference)."""
    return parse_reference(image).host
