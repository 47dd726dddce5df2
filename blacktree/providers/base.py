"""Where builds run: the promises of a provider, and of the sink that it writes its output to.

A provider from outside the package is found by entry point (group `blacktree.providers`): a callable
`open_provider(settings: ProviderSettings) -> AbstractAsyncContextManager[Provider]`.
tests/contracts/provider.py is the suite to hold it to.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec


class Sink(Protocol):
    """Takes what a build prints and does. Every call may wait (back-pressure) and is a checkpoint."""

    async def step_started(self, step: str, name: str) -> None:
        """A step began; `step` is unique within the attempt, at most 64 characters."""
        ...

    async def step_finished(self, step: str, name: str, *, cached: bool, seconds: float, ok: bool) -> None:
        """A step ended (or was cached: then it need not have been started). Its unfinished lines are flushed."""
        ...

    async def output(self, step: str, stream: str, data: bytes) -> None:
        """Raw bytes as they came: any split, any encoding. Lines, masking and limits are the sink's business."""
        ...

    async def progress(self, step: str, current: int, total: int, unit: str) -> None:
        """How far; the sink thins these out."""
        ...

    async def notice(self, code: str, text: str, *, step: str = "") -> None:
        """Something the reader should know, e.g. `output_clipped`."""
        ...


class Entry(msgspec.Struct, frozen=True):
    """A file of a build context. `path` is relative to the context's root, with `/`.

    `mode` is git's: 0o100644, 0o100755 or 0o120000 (symlink: its target is the content). `digest` names the content.
    """

    path: str
    mode: int
    size: int
    digest: str


class Context(Protocol):
    """A build context: confined, immutable, readable more than once."""

    @property
    def key(self) -> str:
        """Stable per source (e.g. repository), so that an engine can keep what it was sent before."""
        ...

    async def entries(self) -> list[Entry]:
        """Every file, sorted by path components; directories are implied."""
        ...

    def read(self, entries: Collection[Entry]) -> AbstractAsyncContextManager[AsyncIterator[tuple[Entry, bytes]]]:
        """The contents, in the order asked for: one or more chunks (at most 64 KiB) each; an empty file gives b""."""
        ...

    def tar(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The whole context as a tar stream that both of the engine's builders accept."""
        ...


class Login(msgspec.Struct, frozen=True):
    """A registry login. Never printed."""

    username: str
    password: str

    def __repr__(self) -> str:
        return "Login(***)"


class BuildRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One image to build. No tag: tags are set afterwards, under a publish grant.

    `inline_cache`: the image shall hold what a later build needs to take its layers from a registry (a wish).
    """

    job_id: str
    attempt: int
    context: Context
    dockerfile: str = "Dockerfile"
    target: str | None = None
    platform: str | None = None
    build_args: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    no_cache: bool = False
    pull: bool = False
    cache_from: Collection[str] = ()
    builder: str = "auto"
    secrets: Mapping[str, bytes] = {}
    inline_cache: bool = False
    login: Callable[[str], Login | None] = lambda host: None

    def __repr__(self) -> str:
        return f"BuildRequest({self.job_id}/{self.attempt})"


class BuiltImage(msgspec.Struct, frozen=True):
    """`id` is the engine's own name of the image, e.g. `sha256:…`."""

    id: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine stands. `refusal` empty: it takes builds; else why not, and what to do.

    `platforms`: what its machine runs by itself; `emulated`: what it runs besides. Families, see `platforms.family`.
    `directories`: what its builds fill on this machine.
    """

    name: str
    version: str = ""
    refusal: str = ""
    details: dict[str, str] = {}
    platforms: list[str] = []
    emulated: list[str] = []
    directories: list[str] = []


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How much a worker may leave on its engine, bytes."""

    image_bytes: int
    cache_bytes: int


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider is opened with. `owner` labels everything it makes (one value per worker and farm)."""

    owner: str
    engine: str = ""
    state_directory: str = ""


class Unproven(Exception):
    """A cancelled or failed build may have left something running; `what` says what and where."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Provider(Protocol):
    """Builds images on one engine. Safe for many builds at once."""

    @property
    def name(self) -> str: ...

    async def check(self) -> Health:
        """Ask the engine how it is. Never raises for a dead engine: that is a refusal."""
        ...

    async def build(self, request: BuildRequest, sink: Sink) -> BuiltImage:
        """Build; everything printed goes to `sink`, secrets reach the build only as secret mounts.

        A failing build raises `StepFailed` (again=False; `step`, `exit_code`, the engine's message); a lost engine or
        unreachable registry raises `EngineLost` or `StepFailed(again=True)`. Cancelling the caller ends the build on
        the engine: when `trio.Cancelled` leaves this call, no process or container of the build is left and no
        temporary thing of it exists. If that cannot be shown within 10 s, raises `Unproven` instead.
        """
        ...

    async def tag(self, image_id: str, references: Collection[str]) -> None:
        """Point these names at the image. Idempotent. Raises `StepFailed` for a name that the engine refuses."""
        ...

    async def untag(self, references: Collection[str]) -> None:
        """Take these names away; an image goes with its last one. No error where there is no such name."""
        ...

    async def push(
        self,
        reference: str,
        login: Login | None,
        sink: Sink,
        *,
        step: str = "push",
        stall_seconds: float = 300.0,
        nearly: Callable[[], None] = lambda: None,
    ) -> str:
        """Push the image of this name (with tag) to the registry that it names; answers the manifest's digest.

        `nearly` may be called, at most once, when every layer is there: a hint that the end is near, no promise of it.
        The layers are steps of their own, named `<step>/<layer>`, with progress in bytes; `step` is the caller's.
        Raises `StepFailed` (codes of `providers.registry.faults`; again=True where a later try can help) also for what
        the engine says in mid-stream, and when nothing moves for `stall_seconds`; `EngineLost` for a lost engine.
        Cancelling the caller ends the push at once; what has arrived by then stays in the registry, unnamed.
        """
        ...

    async def remaining(self, job_id: str) -> list[str]:
        """What is left on the engine of this job's builds: processes, containers, temporary things. Images are not."""
        ...

    async def sweep(self, alive: Collection[str]) -> list[str]:
        """Remove what bears our label and belongs to none of the `alive` jobs; answers what it removed.

        Called at start (nothing alive), periodically, and after an engine was lost; another worker's things stay.
        """
        ...

    async def prune(self, budget: Budget) -> int:
        """Remove own images (oldest first, never one in use) and build cache over the budget; bytes freed."""
        ...
