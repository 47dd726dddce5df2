"""What every `Step` must keep. Subclass `StepSuite`, say how its builds are made, and run it."""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from blacktree.config import WorkerConfig
from blacktree.errors import StepFailed
from blacktree.providers.base import BuiltImage, Provider, ProviderSettings
from blacktree.providers.scripted import ScriptedProvider
from blacktree.services.core.context import Build, Grant, Step
from blacktree.spec import JobSpec
from tests.contracts.provider import Files, Recorder, new_job


class Halting(Recorder):
    """A sink in which everything stops once `at` was told, until it is cancelled."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at = at
        self.reached = trio.Event()

    async def _halt(self, what: str) -> None:
        if what == self.at and not self.reached.is_set():
            self.reached.set()
            await trio.sleep_forever()

    async def step_started(self, step: str, name: str) -> None:
        await super().step_started(step, name)
        await self._halt("started")

    async def output(self, step: str, stream: str, data: bytes) -> None:
        await super().output(step, stream, data)
        await self._halt("output")


def a_build(directory: Path, repository: str = "/nowhere/app", *, sink: Recorder | None = None, **more: Any) -> Build:
    """A build in the making, with the scripted provider and a grant that always holds."""
    job_id = new_job()
    workspace = directory / "work" / f"{job_id}-1"
    workspace.mkdir(parents=True)

    async def resolved(commit: str) -> None:
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def publishing(references: Collection[str] = ()) -> AsyncIterator[Grant]:
        await trio.lowlevel.checkpoint()
        yield Grant()

    values: dict[str, Any] = {
        "job_id": job_id,
        "attempt": 1,
        "spec": JobSpec(repository=repository, **more.pop("spec", {})),
        "config": WorkerConfig(state_directory=str(directory), git_stall_seconds=20.0),
        "workspace": workspace,
        "provider": ScriptedProvider(ProviderSettings(owner="test")),
        "sink": sink or Recorder(),
        "resolved": resolved,
        "publishing": publishing,
    }
    return Build(**values | more)


class StepSuite:
    """Subclass it. Each `…_build` is made anew at every call, in the directory that it is given."""

    make: Callable[[], Step]
    # Where in the sink a cancellation is tried: what the step tells while it works.
    tells: tuple[str, ...] = ("started",)

    async def good_build(self, directory: Path, sink: Recorder) -> Build:
        """One that the step carries out."""
        raise NotImplementedError

    async def bad_build(self, directory: Path, sink: Recorder) -> Build:
        """One that the step cannot carry out."""
        raise NotImplementedError

    def result(self, build: Build) -> object:
        """What the step leaves for later ones; not None after a good build."""
        raise NotImplementedError

    async def left(self, build: Build) -> list[str]:
        """What a cancelled step must not leave: processes, temporary files, half a result."""
        provider: Provider = build.provider
        return await provider.remaining(build.job_id)

    def test_it_is_made_without_arguments_and_has_a_name(self) -> None:
        assert self.make().name
        assert self.make() is not self.make()

    async def test_it_leaves_its_result(self, tmp_path: Path) -> None:
        sink = Recorder()
        build = await self.good_build(tmp_path, sink)
        with trio.fail_after(40):
            await self.make().run(build)
        assert self.result(build) is not None
        assert set(sink.started) <= set(sink.finished)
        assert all(ok for _, _, _, ok in sink.finished.values())
        assert await self.left(build) == []

    async def test_it_can_be_run_again(self, tmp_path: Path) -> None:
        """As a second attempt does: a fresh build in the same place comes to the same."""
        found = []
        for _ in range(2):
            build = await self.good_build(tmp_path, Recorder())
            await self.make().run(build)
            found.append(self.result(build))
        assert found[0] == found[1]

    async def test_what_goes_wrong_is_a_step_failed(self, tmp_path: Path) -> None:
        sink = Recorder()
        build = await self.bad_build(tmp_path, sink)
        with trio.fail_after(40), pytest.raises(StepFailed) as caught:
            await self.make().run(build)
        assert caught.value.code != StepFailed.default_code
        assert caught.value.message
        assert set(sink.started) <= set(sink.finished)
        assert await self.left(build) == []

    async def test_it_runs_after_a_failure(self, tmp_path: Path) -> None:
        with pytest.raises(StepFailed):
            await self.make().run(await self.bad_build(tmp_path, Recorder()))
        build = await self.good_build(tmp_path, Recorder())
        await self.make().run(build)
        assert self.result(build) is not None

    async def test_cancelled_before_it_begins(self, tmp_path: Path) -> None:
        build = await self.good_build(tmp_path, Recorder())
        with trio.fail_after(40), trio.CancelScope() as scope:
            scope.cancel()
            await self.make().run(build)
        assert scope.cancelled_caught
        assert await self.left(build) == []

    async def test_cancelled_while_it_tells(self, tmp_path: Path) -> None:
        """Also with a sink that takes nothing more; and it can be run again afterwards."""
        for at in self.tells:
            sink = Halting(at)
            build = await self.good_build(tmp_path / at, sink)
            with trio.fail_after(40):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.make().run, build)
                    await sink.reached.wait()
                    nursery.cancel_scope.cancel()
            assert await self.left(build) == [], at
            again = await self.good_build(tmp_path / at, Recorder())
            await self.make().run(again)
            assert self.result(again) is not None

    async def test_cancelled_at_its_checkpoints(self, tmp_path: Path) -> None:
        """After the first, second, third … moment of its run."""
        for moments in (1, 2, 3, 5, 8, 13, 21, 34):
            build = await self.good_build(tmp_path, Recorder())
            with trio.fail_after(40):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.make().run, build)
                    for _ in range(moments):
                        await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
            assert await self.left(build) == [], moments
        build = await self.good_build(tmp_path, Recorder())
        await self.make().run(build)
        assert self.result(build) is not None


def an_image(provider: ScriptedProvider) -> BuiltImage:
    """One that this provider has."""
    image = BuiltImage("sha256:" + "0" * 64)
    provider.images.setdefault(image.id, set())
    return image


__all__ = ["Files", "Halting", "StepSuite", "a_build", "an_image"]
