"""How an end is called, and what is told of a failure; labels and names of an image."""

from pathlib import Path
from typing import Any

import pytest
import trio

from blacktree.config import WorkerConfig
from blacktree.errors import EngineLost, StepFailed
from blacktree.providers.base import BuildRequest, BuiltImage, ProviderSettings, Unproven
from blacktree.providers.scripted import ScriptedProvider
from blacktree.services.core.context import Build
from blacktree.services.image.empty import EmptyContext
from blacktree.services.image.names import references_for
from blacktree.services.image.step import BuildStep, labels_for, without_login
from blacktree.services.image.tag import TagStep
from blacktree.spec import JobSpec
from blacktree.worker.attempt import RANK
from blacktree.worker.verdict import ENDS, chief, failure, stopped
from tests.contracts.provider import Recorder


def test_every_order_has_an_end_and_only_a_deadline_is_none() -> None:
    assert set(ENDS) == set(RANK)
    assert {why: stopped(why, 5.0).state for why in ENDS} == ENDS
    error = stopped("", 5.0).error
    assert error is not None
    assert error.message == "not done after 5 s"


def test_no_proof_outweighs_everything_that_went_wrong() -> None:
    step, engine, proof, bug = StepFailed("s"), EngineLost("e"), Unproven("p"), ValueError("v")
    assert chief(ExceptionGroup("g", [step, bug, ExceptionGroup("h", [engine, proof])])) is proof
    assert chief(ExceptionGroup("g", [bug, step, engine])) is engine
    assert chief(ExceptionGroup("g", [bug, step])) is step
    assert chief(bug) is bug


def test_advice_is_guessed_only_where_none_came() -> None:
    lines = ["sh: 1: npm: not found"]
    guessed = failure(StepFailed("exit 127", exit_code=127, step="3/4"), "build", lines)
    assert (guessed.step, guessed.exit_code, guessed.last_lines) == ("3/4", 127, lines)
    assert "most likely" in guessed.advice
    assert failure(StepFailed("x", advice="do this"), "build", lines).advice == "do this"
    bug = failure(ValueError("boom"), "mine", [])
    assert (bug.code, bug.step, bug.retryable) == ("internal", "mine", False)


def a_build(tmp_path: Path, spec: JobSpec, **keys: Any) -> Build:
    async def resolved(commit: str) -> None: ...

    return Build(
        job_id="job1",
        attempt=1,
        spec=spec,
        config=WorkerConfig(id="w1"),
        workspace=tmp_path,
        provider=ScriptedProvider(ProviderSettings(owner="w1")),
        sink=Recorder(),
        resolved=resolved,
        publishing=lambda: pytest.fail("published without a grant"),
        **keys,
    )


def test_labels_are_the_standard_ones_and_the_jobs_own_win(tmp_path: Path) -> None:
    spec = JobSpec(
        repository="https://me:token@example.org/a.git", labels={"x": "1", "org.opencontainers.image.source": "mine"}
    )
    labels = labels_for(a_build(tmp_path, spec, commit="c" * 40))
    assert labels.pop("org.opencontainers.image.created").endswith("Z")
    assert labels == {
        "x": "1",
        "org.opencontainers.image.source": "mine",
        "org.opencontainers.image.revision": "c" * 40,
    }


@pytest.mark.parametrize(
    ("repository", "shown"),
    [
        ("https://me:token@example.org/a@b.git", "https://example.org/a@b.git"),
        ("https://example.org/a.git", "https://example.org/a.git"),
        ("git@example.org:a.git", "git@example.org:a.git"),
    ],
)
def test_no_login_reaches_a_label(repository: str, shown: str) -> None:
    assert without_login(repository) == shown


def test_names_of_an_image(tmp_path: Path) -> None:
    url = "https://example.org/Team/App.git"
    assert references_for(a_build(tmp_path, JobSpec(repository=url), commit="0123456789abcdef")) == ["app:0123456789ab"]
    assert references_for(a_build(tmp_path, JobSpec(repository=url))) == ["app:job1"]
    named = JobSpec(repository=url, image="r.example/x", tags=["a", "b"])
    assert references_for(a_build(tmp_path, named)) == ["r.example/x:a", "r.example/x:b"]


async def test_tagging_without_an_image_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StepFailed) as raised:
        await TagStep().run(a_build(tmp_path, JobSpec(repository="x")))
    assert "worker.steps" in raised.value.advice


async def test_the_whole_spec_reaches_the_provider(tmp_path: Path) -> None:
    seen: list[BuildRequest] = []

    class Seeing(ScriptedProvider):
        async def build(self, request: BuildRequest, sink: Any) -> BuiltImage:
            await trio.lowlevel.checkpoint()
            seen.append(request)
            return BuiltImage("sha256:1")

    spec = JobSpec(
        repository="x",
        dockerfile="D",
        target="t",
        platform="linux/arm64",
        build_args={"A": "1"},
        no_cache=True,
        pull=True,
        cache_from=["c"],
        builder="classic",
    )
    build = a_build(tmp_path, spec, secrets={"S": b"v"})
    build.provider = Seeing(ProviderSettings(owner="w1"))
    await BuildStep().run(build)
    [request] = seen
    for field in ("dockerfile", "target", "platform", "build_args", "no_cache", "pull", "cache_from", "builder"):
        assert getattr(request, field) == getattr(spec, field)
    assert request.secrets == {"S": b"v"}
    assert build.built == BuiltImage("sha256:1")
    async with request.context.tar() as pieces:
        assert b"".join([piece async for piece in pieces]) == bytes(1024)
    assert isinstance(request.context, EmptyContext)
    assert await request.context.entries() == []
