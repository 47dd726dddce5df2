"""The step contract, on each of our own steps."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from blacktree.errors import StepFailed
from blacktree.providers.base import BuiltImage
from blacktree.providers.registry.manifest import index_of
from blacktree.providers.scripted import ScriptedProvider
from blacktree.services.core.context import Build
from blacktree.services.image.push import PushStep
from blacktree.services.image.step import BuildStep
from blacktree.services.image.tag import TagStep
from blacktree.services.sync.step import SyncStep
from tests.contracts.provider import Recorder
from tests.contracts.step import StepSuite, a_build, an_image
from tests.parts.engine import processes_with
from tests.parts.git_server import make_repository
from tests.parts.odd_registry import odd_registry


class TestSync(StepSuite):
    make = SyncStep
    tells = ("started", "output")

    async def good_build(self, directory: Path, sink: Recorder) -> Build:
        source = directory / "source"
        if not source.exists():
            make_repository(source, {"Dockerfile": "FROM scratch\n", "file": "x" * 1000})
        return a_build(directory, str(source), sink=sink, allow_local_sources=True)

    async def bad_build(self, directory: Path, sink: Recorder) -> Build:
        return a_build(directory, str(directory / "no-such"), sink=sink, allow_local_sources=True)

    def result(self, build: Build) -> object:
        return (build.commit, build.context.key) if build.context else None

    async def left(self, build: Build) -> list[str]:
        return [f"process {pid}" for pid in processes_with(build.spec.repository)]


class TestBuild(StepSuite):
    make = BuildStep
    tells = ("started", "output")

    async def good_build(self, directory: Path, sink: Recorder) -> Build:
        script = [{"step": "1", "lines": 3}, {"step": "2", "seconds": 0.01}]
        return a_build(directory, sink=sink, spec={"build_args": {"SCRIPT": json.dumps(script)}})

    async def bad_build(self, directory: Path, sink: Recorder) -> Build:
        script = [{"step": "1", "lines": 3}, {"exit": 3}]
        return a_build(directory, sink=sink, spec={"build_args": {"SCRIPT": json.dumps(script)}})

    def result(self, build: Build) -> object:
        return "built" if build.built else None


class TestTag(StepSuite):
    make = TagStep

    async def good_build(self, directory: Path, sink: Recorder) -> Build:
        build = a_build(directory, sink=sink, spec={"image": "team/app", "tags": ["1", "latest"]})
        assert isinstance(build.provider, ScriptedProvider)
        build.built = an_image(build.provider)
        return build

    async def bad_build(self, directory: Path, sink: Recorder) -> Build:
        build = a_build(directory, sink=sink)
        build.built = BuiltImage("sha256:pruned")
        return build

    def result(self, build: Build) -> object:
        return build.image


class TestPush(StepSuite):
    """With a provider whose pushes bring one manifest, and a registry that has it already."""

    make = PushStep

    @pytest.fixture(autouse=True)
    def _registry(self) -> Iterator[None]:
        with odd_registry() as self.odd:
            yield

    async def good_build(self, directory: Path, sink: Recorder) -> Build:
        build = a_build(directory, sink=sink, spec={"image": f"{self.odd.host}/team/app", "tags": ["1"], "push": True})
        assert isinstance(build.provider, ScriptedProvider)
        manifest = index_of([])
        self.odd.manifests[manifest.digest] = (manifest.media_type, manifest.body)
        build.built = BuiltImage(manifest.digest)
        build.provider.images[manifest.digest] = {"app:1"}
        return build

    async def bad_build(self, directory: Path, sink: Recorder) -> Build:
        self.odd.rule("^PUT", status=403, times=1)
        return await self.good_build(directory, sink)

    def result(self, build: Build) -> object:
        return build.image

    async def left(self, build: Build) -> list[str]:
        assert isinstance(build.provider, ScriptedProvider)
        names = [name for names in build.provider.images.values() for name in names if name != "app:1"]
        return names + [tag for tag in self.odd.tags if ":bt-" in tag] + await super().left(build)


async def test_push_needs_an_image(tmp_path: Path) -> None:
    with pytest.raises(StepFailed) as caught:
        await PushStep().run(a_build(tmp_path, spec={"image": "127.0.0.1:1/app", "push": True}))
    assert (caught.value.code, caught.value.step) == ("no_image", "push")


async def test_tag_needs_an_image(tmp_path: Path) -> None:
    with pytest.raises(StepFailed) as caught:
        await TagStep().run(a_build(tmp_path))
    assert (caught.value.code, caught.value.step) == ("no_image", "tag")
    assert "worker.steps" in caught.value.advice
