"""The provider that follows a script instead of an engine: for dry runs of a whole farm, and for tests.

The script is the build argument `SCRIPT` of the job itself: a JSON list of actions, each an object with any of

- `step`, `name`: which step this belongs to (else the one before), and its name for people;
- `seconds`: wait so long first; `until`: wait for a file at this path, on the worker's machine;
- `lines` and `line`: print `line` so many times, numbered where it has `{n}`;
- `bytes_base64`: print these bytes; `stream`: `stdout` (default) or `stderr`;
- `progress`: `[current, total]`; `notice`: `[code, text]`; `cached`: the step came from the cache;
- `exit`: not 0 fails the build with this exit code; `error`: `{"code", "message", "again", "engine"}` fails it
  otherwise (`engine` true: as if the engine were lost);
- `push` true: this is done by the push of the image, not by its build;
- `beside`: scripts that are followed beside each other, each with steps of its own; the step before has ended then;
- `cancel_seconds`: from here on the end of a cancelled build takes this long to prove, or, with `cancel_until`, until
  there is a file at this path; `unproven`: it cannot be proven.

No script: the build succeeds at once. Equal requests give equal image ids, and an image's digest is its id.
"""

import hashlib
import platform
import re
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

import msgspec
import trio

from blacktree.errors import EngineLost, StepFailed
from blacktree.providers.base import Budget, BuildRequest, BuiltImage, Health, Login, ProviderSettings, Sink, Unproven
from blacktree.providers.docker.scope import open_tasks
from blacktree.providers.scripted_containers import ScriptedContainers

CHUNK_LINES = 1000
LOOK_SECONDS = 0.02
LONGEST_SECONDS = 3600.0

# Looser than the distribution project's grammar: enough to refuse what every engine does.
_REFERENCE = re.compile(
    r"(?:(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)(?::\d+)?/|[A-Za-z0-9-]+:\d+/)?"
    r"[a-z0-9][a-z0-9._/-]*:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z"
)


class Failing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an action fails."""

    message: str
    code: str = "scripted"
    again: bool = False
    engine: bool = False


class Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of a script."""

    step: str = ""
    name: str = ""
    seconds: float = 0.0
    until: str = ""
    lines: int = 0
    line: str = "line {n}"
    bytes_base64: bytes = b""
    stream: str = "stdout"
    progress: tuple[int, int] | None = None
    notice: tuple[str, str] | None = None
    cached: bool = False
    exit: int = 0
    error: Failing | None = None
    cancel_seconds: float | None = None
    cancel_until: str | None = None
    unproven: bool | None = None
    push: bool = False
    beside: list[list["Action"]] = []


_decode = msgspec.json.Decoder(list[Action]).decode


class _Running:
    """One build: what it is at, and how hard its end is to prove."""

    def __init__(self) -> None:
        self.cancel_seconds = 0.0
        self.cancel_until = ""
        self.unproven = False


class ScriptedProvider:
    """Keeps its images and names in memory; `remaining` lists builds whose end was not proven."""

    name = "scripted"
    containers: ScriptedContainers  # only where it was opened: they need a nursery

    def __init__(self, settings: ProviderSettings) -> None:
        self._owner = settings.owner
        self._left: dict[str, int] = {}
        self._pushes: dict[str, list[Action]] = {}
        self.images: dict[str, set[str]] = {}
        self.pushed: dict[str, str] = {}

    async def check(self) -> Health:
        await trio.lowlevel.checkpoint()
        return Health(name=self.name, version=platform.python_version())

    async def build(self, request: BuildRequest, sink: Sink) -> BuiltImage:
        script = self._script(request)
        running = _Running()
        self._left[request.job_id] = self._left.get(request.job_id, 0) + 1
        try:
            await self._follow(script, running, sink)
        except trio.Cancelled:
            with trio.move_on_after(running.cancel_seconds, shield=True):
                if running.cancel_until:
                    await _there(running.cancel_until)
                else:
                    await trio.sleep_forever()
            if running.unproven:
                raise Unproven(f"the script of {request.job_id} says so") from None
            raise
        finally:
            if not running.unproven:
                self._forget(request.job_id)
        identity = hashlib.sha256(
            msgspec.json.encode([request.build_args, request.labels, request.target], order="sorted")
        )
        image = BuiltImage(f"sha256:{identity.hexdigest()}")
        self.images.setdefault(image.id, set())
        self._pushes[image.id] = [action for action in script if action.push]
        return image

    async def tag(self, image_id: str, references: Collection[str]) -> None:
        await trio.lowlevel.checkpoint()
        if image_id not in self.images:
            raise StepFailed(f"no such image: {image_id}", code="no_image", step="tag")
        for reference in references:
            if not _REFERENCE.match(reference):
                raise StepFailed(f"invalid reference format: {reference}", code="bad_name", step="tag")
        for names in self.images.values():
            names.difference_update(references)
        self.images[image_id].update(references)

    async def untag(self, references: Collection[str]) -> None:
        await trio.lowlevel.checkpoint()
        for names in self.images.values():
            names.difference_update(references)

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
        await trio.lowlevel.checkpoint()
        image = next((image for image, names in self.images.items() if reference in names), None)
        if image is None:
            raise StepFailed(f"no such image: {reference}", code="image_gone", again=True, step="push")
        layer, name = f"{step}/layer"[:64], "push layer layer"
        await sink.step_started(layer, name)
        ok = False
        try:
            with trio.move_on_after(stall_seconds) as patience:
                for action in self._pushes.get(image, []):
                    await self._act(action, layer, _Running(), sink)
            if patience.cancelled_caught:
                raise StepFailed("nothing moved", code="registry_slow", again=True, step="push")
            await sink.progress(layer, 1, 1, "bytes")
            nearly()
            ok = True
        finally:
            with trio.move_on_after(2, shield=True):
                await sink.step_finished(layer, name, cached=False, seconds=0.0, ok=ok)
        self.pushed[reference] = image
        return image

    async def remaining(self, job_id: str) -> list[str]:
        await trio.lowlevel.checkpoint()
        return [f"build of {job_id}"] if job_id in self._left else []

    async def sweep(self, alive: Collection[str]) -> list[str]:
        await trio.lowlevel.checkpoint()
        dead = [job_id for job_id in self._left if job_id not in alive]
        for job_id in dead:
            del self._left[job_id]
        return [f"build of {job_id}" for job_id in dead]

    async def prune(self, budget: Budget) -> int:
        await trio.lowlevel.checkpoint()
        return 0

    def _script(self, request: BuildRequest) -> list[Action]:
        text = request.build_args.get("SCRIPT", "")
        if not text:
            return []
        try:
            return _decode(text)
        except msgspec.DecodeError as error:
            raise StepFailed(
                f"the build argument SCRIPT is no script: {error}", code="bad_script", step="build"
            ) from None

    async def _follow(self, script: list[Action], running: _Running, sink: Sink) -> None:
        await trio.lowlevel.checkpoint()
        step, name, began = "", "", trio.current_time()
        cached = False
        for action in [action for action in script if not action.push]:
            if action.step and action.step != step:
                if step:
                    await _finish(sink, step, name, cached, began, ok=True)
                step, name, began = action.step, action.name or action.step, trio.current_time()
                await sink.step_started(step, name)
            elif action.beside and step:
                await _finish(sink, step, name, cached, began, ok=True)
                step = ""
            cached = action.cached
            try:
                await self._act(action, step or "build", running, sink)
            except (StepFailed, EngineLost):
                if step:
                    await _finish(sink, step, name, cached, began, ok=False)
                raise
        if step:
            await _finish(sink, step, name, cached, began, ok=True)

    async def _act(self, action: Action, step: str, running: _Running, sink: Sink) -> None:
        if action.cancel_seconds is not None:
            running.cancel_seconds = action.cancel_seconds
        if action.cancel_until is not None:
            running.cancel_until, running.cancel_seconds = action.cancel_until, LONGEST_SECONDS
        if action.unproven is not None:
            running.unproven = action.unproven
        if action.seconds:
            await trio.sleep(action.seconds)
        if action.until:
            await _there(action.until)
        if action.beside:
            await self._beside(action.beside, running, sink)
        for start in range(0, action.lines, CHUNK_LINES):
            numbers = range(start + 1, min(start + CHUNK_LINES, action.lines) + 1)
            text = "".join([action.line.replace("{n}", str(number)) + "\n" for number in numbers])
            await sink.output(step, action.stream, text.encode())
        if action.bytes_base64:
            await sink.output(step, action.stream, action.bytes_base64)
        if action.progress:
            await sink.progress(step, *action.progress, "steps")
        if action.notice:
            await sink.notice(*action.notice, step=step)
        if action.error is not None:
            if action.error.engine:
                raise EngineLost(action.error.message)
            raise StepFailed(action.error.message, code=action.error.code, again=action.error.again, step=step)
        if action.exit:
            raise StepFailed(
                f"the step exited with code {action.exit}", code="build_failed", step=step, exit_code=action.exit
            )

    async def _beside(self, scripts: list[list[Action]], running: _Running, sink: Sink) -> None:
        failed: list[StepFailed | EngineLost] = []
        async with trio.open_nursery() as nursery:

            async def follow(script: list[Action]) -> None:
                try:
                    await self._follow(script, running, sink)
                except (StepFailed, EngineLost) as error:
                    # Alone, not in a group: whoever called knows these.
                    failed.append(error)
                    nursery.cancel_scope.cancel()

            for script in scripts:
                nursery.start_soon(follow, script)
        if failed:
            raise failed[0]

    def _forget(self, job_id: str) -> None:
        left = self._left.get(job_id, 0) - 1
        if left > 0:
            self._left[job_id] = left
        else:
            self._left.pop(job_id, None)


async def _there(path: str) -> None:
    """Until this file is there; nothing tells of it, so it is looked for."""
    while not await trio.Path(path).exists():
        await trio.sleep(LOOK_SECONDS)


async def _finish(sink: Sink, step: str, name: str, cached: bool, began: float, *, ok: bool) -> None:
    await sink.step_finished(step, name, cached=cached, seconds=trio.current_time() - began, ok=ok)


@asynccontextmanager
async def open_provider(settings: ProviderSettings) -> AsyncIterator[ScriptedProvider]:
    """Entry point `scripted`. Its containers end with it."""
    provider = ScriptedProvider(settings)
    async with open_tasks() as tasks:
        provider.containers = ScriptedContainers(tasks)
        yield provider
        tasks.cancel_scope.cancel()
