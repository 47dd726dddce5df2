"""A step and a provider from outside the package, installed as a distribution of its own, at work in a real worker."""

from pathlib import Path

import pytest

from blacktree.errors import BadRequest
from blacktree.event import Notice
from blacktree.worker.steps import find_steps
from tests.parts.orchestrator_side import OrchestratorPart, an_assignment
from tests.worker.test_daemon import a_worker

CODE = '''
"""What somebody else might write."""

from contextlib import asynccontextmanager

import trio

from blacktree.errors import StepFailed
from blacktree.providers.scripted import ScriptedProvider


class SizeStep:
    """Refuses what has no image; says how long its name is."""

    name = "size"

    async def run(self, build):
        if build.built is None:
            raise StepFailed("nothing was built", code="no_image", step=self.name)
        await build.sink.notice("size", f"the id has {len(build.built.id)} characters", step=self.name)


class Loud(ScriptedProvider):
    name = "loud"

    async def build(self, request, sink):
        await sink.output("loud", "stdout", b"LOUD\\n")
        return await super().build(request, sink)


@asynccontextmanager
async def open_provider(settings):
    yield Loud(settings)
'''
ENTRY_POINTS = """
[blacktree.steps]
size = outside_example:SizeStep
broken = outside_example:Missing

[blacktree.providers]
loud = outside_example:open_provider
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    info = site / "outside_example-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "outside_example.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-example\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))


async def test_they_are_found_and_used(outside: None, tmp_path: Path) -> None:
    part = OrchestratorPart()
    assignment = an_assignment()
    async with a_worker(tmp_path, part, provider="loud", steps=("build", "size", "tag")) as (side, _):
        await side.run_jobs([assignment])
        outcome = await part.outcome(assignment.name)
    assert outcome.state == "succeeded"
    stored = part.of(assignment.name)
    assert stored.text == "LOUD\n"
    assert [each.text for each in stored.records if isinstance(each, Notice)] == ["the id has 71 characters"]


async def test_a_failing_outside_step_is_named(outside: None, tmp_path: Path) -> None:
    part = OrchestratorPart()
    assignment = an_assignment()
    async with a_worker(tmp_path, part, steps=("size", "build")) as (side, _):
        await side.run_jobs([assignment])
        outcome = await part.outcome(assignment.name)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.step) == ("no_image", "size")


def test_one_that_cannot_be_loaded_is_refused_at_start(outside: None) -> None:
    with pytest.raises(BadRequest, match="cannot be loaded"):
        find_steps(["broken"])
