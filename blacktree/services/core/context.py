"""`Build`: what every step of a build is given. And the promise of a step.

A step from outside the package is found by entry point (group `blacktree.steps`) and named in `worker.steps`,
which is also their order.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from blacktree.config import WorkerConfig
from blacktree.job import Image
from blacktree.providers.aws.ecr import Ecr
from blacktree.providers.base import BuiltImage, Context, Login, Provider, Sink
from blacktree.spec import JobSpec


@dataclass(frozen=True, kw_only=True)
class Grant:
    """A publish grant. `withheld`: of the names that were asked for, those that a newer job has taken already.

    `check()` is asked right before each name is moved; it raises `StepFailed` (code `publish_expired`, again=True) once
    the grant is over, also where the process was stopped meanwhile and no timer has run yet.
    """

    withheld: frozenset[str] = frozenset()
    check: Callable[[], None] = lambda: None


class Publishing(Protocol):
    """Asks for a publish grant, for these names in registries (none: for names on the engine only)."""

    def __call__(self, references: Collection[str] = ()) -> AbstractAsyncContextManager[Grant]: ...


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One platform's image of a job that builds several."""

    platform: str
    image: BuiltImage


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """One platform's image that another job has pushed, and the tag that keeps it in the registry until then."""

    platform: str
    digest: str
    tag: str


@dataclass(kw_only=True)
class Build:
    """One attempt in the making. Steps read what earlier ones left here and leave what later ones need.

    `resolved(commit)` puts the commit on record and returns once the orchestrator has it (every later attempt
    builds the same one). `publishing()` is a context in which names may be moved (tags, manifests): it is entered
    only while the orchestrator's publish grant holds and is cancelled when that ends; `expect_publishing(names)` is the
    hint that it will soon be. `clone_token` came with the job,
    for its repository alone. `trusted` false: nothing is pushed and no cache is shared. `cache_from`: what this image
    was last published as. `variants`: every platform's image, where `spec.platforms` names them; `built` is the first
    one then. `part`: it is one platform of another job, and nobody looks for it on the engine. `parts`: nothing is to
    be built, these are to be put together.
    """

    job_id: str
    attempt: int
    spec: JobSpec
    config: WorkerConfig
    workspace: Path
    provider: Provider
    sink: Sink
    resolved: Callable[[str], Awaitable[None]]
    publishing: Publishing
    expect_publishing: Callable[[Collection[str]], None] = lambda references: None
    allow_local_sources: bool = False
    commit: str | None = None
    trusted: bool = True
    cache_from: Collection[str] = ()
    part: bool = False
    parts: Sequence[Pushed] = ()
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    clone_token: str = field(default="", repr=False)
    login: Callable[[str], Login | None] = field(default=lambda host: None, repr=False)
    ecr: Ecr | None = None
    context: Context | None = None
    built: BuiltImage | None = None
    variants: list[Variant] = field(default_factory=list)
    image: Image | None = None


class Step(Protocol):
    """One step. Made anew for each build, without arguments.

    `run` raises `StepFailed` for what went wrong (again=True if a later attempt can succeed). It is cancelled at any
    checkpoint; whatever it made must be gone when `trio.Cancelled` leaves it. It reports through `build.sink`.
    """

    name: str

    async def run(self, build: Build) -> None: ...
