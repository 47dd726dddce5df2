"""`Build`: what every step of a build is given. And the promise of a step.

A step from outside the package is found by entry point (group `blacktree.steps`) and named in `worker.steps`,
which is also their order.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from blacktree.config import WorkerConfig
from blacktree.job import Image
from blacktree.providers.base import BuiltImage, Context, Login, Provider, Sink
from blacktree.spec import JobSpec


@dataclass(kw_only=True)
class Build:
    """One attempt in the making. Steps read what earlier ones left here and leave what later ones need.

    `resolved(commit)` puts the commit on record and returns once the orchestrator has it (every later attempt
    builds the same one). `publishing()` is a context in which names may be moved (tags, manifests): it is entered
    only while the orchestrator's publish grant holds and is cancelled when that ends. `clone_token` came with the job,
    for its repository alone.
    """

    job_id: str
    attempt: int
    spec: JobSpec
    config: WorkerConfig
    workspace: Path
    provider: Provider
    sink: Sink
    resolved: Callable[[str], Awaitable[None]]
    publishing: Callable[[], AbstractAsyncContextManager[None]]
    allow_local_sources: bool = False
    commit: str | None = None
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    clone_token: str = field(default="", repr=False)
    login: Callable[[str], Login | None] = field(default=lambda host: None, repr=False)
    context: Context | None = None
    built: BuiltImage | None = None
    image: Image | None = None


class Step(Protocol):
    """One step. Made anew for each build, without arguments.

    `run` raises `StepFailed` for what went wrong (again=True if a later attempt can succeed). It is cancelled at any
    checkpoint; whatever it made must be gone when `trio.Cancelled` leaves it. It reports through `build.sink`.
    """

    name: str

    async def run(self, build: Build) -> None: ...
