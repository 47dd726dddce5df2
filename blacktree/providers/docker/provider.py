"""The `Provider` on a Docker engine: chooses a builder, watches over each build's end, keeps house."""

import os
import posixpath
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import PurePosixPath

import trio

from blacktree.concurrency.threads import in_thread
from blacktree.errors import EngineLost, StepFailed
from blacktree.providers.base import (
    Budget,
    BuildRequest,
    BuiltImage,
    Entry,
    Health,
    Login,
    ProviderSettings,
    Sink,
    Unproven,
)
from blacktree.providers.docker.address import engine_address
from blacktree.providers.docker.build import BuildKitBuild
from blacktree.providers.docker.classic import ClassicBuild
from blacktree.providers.docker.containers import DockerContainers
from blacktree.providers.docker.engine import Engine, Traits
from blacktree.providers.docker.faults import refused
from blacktree.providers.docker.housekeeping import Housekeeping
from blacktree.providers.docker.labels import labels_for, mark_for
from blacktree.providers.docker.ledger import Ledger
from blacktree.providers.docker.leftovers import alive as living
from blacktree.providers.docker.proof import Prover
from blacktree.providers.docker.push import Push
from blacktree.providers.docker.stream import Connector, EngineRefused

CLASSIC_TRIES = 3
_FRESH_SECONDS = 900.0
_SYMLINK = 0o120000


@asynccontextmanager
async def open_provider(settings: ProviderSettings) -> AsyncIterator["DockerProvider"]:
    """A provider on the engine that `settings.engine`, else `DOCKER_HOST`, names. Needs no engine to be there yet."""
    yield DockerProvider(settings, Engine(Connector(engine_address(settings.engine, os.environ))))


class DockerProvider:
    """Builds on one engine."""

    name = "docker"

    def __init__(self, settings: ProviderSettings, engine: Engine) -> None:
        self._owner = settings.owner
        self._engine = engine
        self._ledger = Ledger(settings.state_directory)
        self.containers = DockerContainers(engine, settings.owner, self._keep, self._ledger.add)
        self._house = Housekeeping(engine, settings.owner)
        self._running: dict[str, tuple[str, BuildKitBuild]] = {}
        self._prover = Prover(engine, settings.owner, lambda: [build for _, build in self._running.values()])
        # What an unproven end may have left: job to the names of its steps' cgroups.
        self._doubtful: dict[str, set[str]] = {}
        self._fresh: dict[str, float] = {}

    async def check(self) -> Health:
        """See `Provider`."""
        return await self._engine.health()

    async def build(self, request: BuildRequest, sink: Sink) -> BuiltImage:
        """See `Provider`."""
        traits = await self._engine.traits()
        if traits.podman:
            raise EngineLost((await self._engine.health()).refusal, code="engine_refused", again=False)
        entries = await request.context.entries()
        _check_dockerfile(request.dockerfile, entries)
        labels = labels_for(self._owner, request.job_id, request.attempt, request.labels)
        if _with_buildkit(request, traits):
            kit = BuildKitBuild(self._engine.connector, request, sink, labels, entries)
            image = await self._buildkit(kit, request.job_id, traits)
        else:
            image = await self._classic(request, sink, labels, entries, traits)
        self._keep(image.id)
        await self._ledger.add(image.id)
        return image

    async def _buildkit(self, build: BuildKitBuild, job_id: str, traits: Traits) -> BuiltImage:
        self._running[build.key] = (job_id, build)
        try:
            return await build.run()
        except BaseException:
            with trio.CancelScope(shield=True):
                try:
                    await self._prover.buildkit(build, traits)
                except Unproven:
                    left = await self._prover.left_by(build, traits)
                    self._doubtful.setdefault(job_id, set()).update(each.id for each in left)
                    raise
            raise
        finally:
            del self._running[build.key]

    async def _classic(
        self, request: BuildRequest, sink: Sink, labels: Mapping[str, str], entries: Sequence[Entry], traits: Traits
    ) -> BuiltImage:
        mark = mark_for(self._owner, request.job_id, request.attempt)
        tries = 1
        while True:
            build = ClassicBuild(self._engine.connector, request, sink, labels, entries, mark, tries)
            try:
                return await build.run()
            except BaseException as error:
                with trio.CancelScope(shield=True):
                    await self._prover.classic(build, traits)
                if not isinstance(error, StepFailed) or error.code != "image_gone" or tries == CLASSIC_TRIES:
                    raise
                text = f"built again: a layer was removed meanwhile, with an image that had it too ({error.message})"
                await sink.notice("built_again", text)
                tries += 1

    def _keep(self, image_id: str) -> None:
        """Not to be pruned for a while: nothing refers to it yet."""
        self._fresh[image_id] = trio.current_time()

    async def tag(self, image_id: str, references: Collection[str]) -> None:
        """See `Provider`."""
        await self._engine.tag(image_id, references)
        self._fresh.pop(image_id, None)

    async def untag(self, references: Collection[str]) -> None:
        """See `Provider`."""
        await self._engine.untag(references)

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
        """See `Provider`."""
        await self._engine.traits()
        return await Push(self._engine.connector, reference, login, sink, step, nearly).run(stall_seconds)

    async def remaining(self, job_id: str) -> list[str]:
        """See `Provider`."""
        traits = await self._engine.traits()
        found: list[str] = []
        if traits.local:
            for key, (job, build) in list(self._running.items()):
                if job == job_id and key in self._running:
                    found += [f"process {each.command[:80]!r}" for each in await self._prover.left_by(build, traits)]
            if doubtful := self._doubtful.get(job_id):
                lives = await in_thread(partial(living, set(doubtful)))
                found += [f"process {pid}" for pids in lives.values() for pid in pids]
                doubtful &= set(lives)
        try:
            for kind, listed in (
                ("container", await self._house.containers()),
                ("volume", await self._house.volumes()),
                ("network", await self._house.networks()),
            ):
                found += [f"{kind} {name[:12]}" for name, job in listed.items() if job == job_id]
        except EngineRefused as error:
            raise refused(error, "remaining") from None
        return found

    async def sweep(self, alive: Collection[str]) -> list[str]:
        """See `Provider`."""
        traits = await self._engine.traits(anew=True)
        return await self._house.sweep(alive, traits, local=traits.local)

    async def prune(self, budget: Budget) -> int:
        """See `Provider`."""
        # An image is without a tag until its grant comes, or its container is made: it must not look old meanwhile.
        horizon = trio.current_time() - _FRESH_SECONDS
        self._fresh = {image: when for image, when in self._fresh.items() if when > horizon}
        freed, gone = await self._house.prune(budget, await self._ledger.ids(), self._fresh)
        await self._ledger.forget(gone)
        return freed


def _with_buildkit(request: BuildRequest, traits: Traits) -> bool:
    if request.builder == "classic":
        return False
    if traits.buildkit:
        return True
    if request.builder == "buildkit":
        raise StepFailed(
            f"the engine (Docker {traits.version}) has no BuildKit",
            code="needs_buildkit",
            again=False,
            advice="leave `builder` at auto, or use Docker 18.09 or newer",
        )
    return False


def _check_dockerfile(dockerfile: str, entries: Collection[Entry]) -> None:
    """Raises `StepFailed` where the engine's own words would be obscure."""
    path = posixpath.normpath(dockerfile)
    names = {entry.path for entry in entries}
    links = {entry.path for entry in entries if entry.mode == _SYMLINK}
    # Behind a link the engine looks itself, and never outside the context.
    if path in names or any(str(parent) in links for parent in PurePosixPath(path).parents):
        return
    if any(name.startswith(path + "/") for name in names):
        raise StepFailed(f"`{dockerfile}` is a directory", code="dockerfile_missing", again=False, step="dockerfile")
    raise StepFailed(
        f"there is no `{dockerfile}` in the build context",
        code="dockerfile_missing",
        again=False,
        step="dockerfile",
        advice="`dockerfile` is relative to `context`",
    )
