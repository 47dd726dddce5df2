"""The worker with its real parts: git, the engine, all three steps."""

import subprocess
from pathlib import Path

import pytest
import trio

from blacktree.event import StepFinished
from blacktree.rpc.peer import Assignment, AttemptName
from blacktree.spec import JobSpec
from tests.parts.engine import ensure_base
from tests.parts.orchestrator_side import OrchestratorPart
from tests.worker.test_daemon import a_worker

pytestmark = pytest.mark.docker

IMAGE = "blacktree-test/worker-daemon"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return commit_of(tmp_path / "repository", "FROM scratch\nCOPY hello /hello\n")


def commit_of(path: Path, dockerfile: str) -> Path:
    path.mkdir()
    (path / "Dockerfile").write_text(dockerfile)
    (path / "hello").write_text("hello\n")
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *arguments], cwd=path, check=True)
    return path


async def test_from_a_commit_to_a_named_image(repository: Path, tmp_path: Path) -> None:
    part = OrchestratorPart()
    spec = JobSpec(repository=str(repository), image=IMAGE)
    assignment = Assignment(
        name=AttemptName(job_id="worker-docker", attempt=1, token="t"), spec=spec, allow_local_sources=True
    )
    async with a_worker(tmp_path, part, provider="docker", steps=("sync", "build", "tag")) as (side, _):
        [answer] = await side.run_jobs([assignment])
        assert answer.accepted, answer
        outcome = await part.outcome(assignment.name, 40)
        await part.until(lambda: part.reports[-1].status.warm == [str(repository)])
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True)
    assert part.of(assignment.name).commit == commit.stdout.strip()
    assert outcome.state == "succeeded", outcome
    assert outcome.image is not None
    reference = f"{IMAGE}:{commit.stdout[:12]}"
    try:
        assert outcome.image.reference == reference
        labels = await trio.run_process(
            ["docker", "inspect", "-f", "{{json .Config.Labels}}", reference], capture_stdout=True
        )
        assert commit.stdout.strip() in labels.stdout.decode()
    finally:
        await trio.run_process(["docker", "rmi", "-f", outcome.image.id], capture_stdout=True)
    steps = [record.step for record in part.of(assignment.name).records if isinstance(record, StepFinished)]
    assert (steps[0], steps[-1]) == ("sync", "tag")
    assert all(each.ok for each in part.of(assignment.name).records if isinstance(each, StepFinished))
    assert list((tmp_path / "state" / "work").iterdir()) == []


async def test_the_last_lines_are_those_of_the_stage_that_failed(tmp_path: Path) -> None:
    base = ensure_base("/var/run/docker.sock")
    meet = f"RUN --mount=type=cache,id={tmp_path.name},target=/meet "
    repository = commit_of(
        tmp_path / "repository",
        f"FROM {base} AS a\n{meet}echo no rule; until [ -e /meet/b ]; do usleep 1000; done; : hunter2hunter2; exit 4\n"
        f"FROM {base} AS b\n{meet}for i in $(seq 100); do echo tick $i; done; touch /meet/b; sleep 600\n"
        "FROM scratch\nCOPY --from=a / /a\nCOPY --from=b / /b\n",
    )
    part = OrchestratorPart()
    spec = JobSpec(repository=str(repository), no_cache=True, secrets=["word"])
    assignment = Assignment(
        name=AttemptName(job_id="worker-stages", attempt=1, token="t"),
        spec=spec,
        secrets={"word": b"hunter2hunter2"},
        allow_local_sources=True,
    )
    async with a_worker(tmp_path, part, provider="docker", steps=("sync", "build", "tag")) as (side, _):
        await side.run_jobs([assignment])
        outcome = await part.outcome(assignment.name, 60)
    assert outcome.error is not None
    assert outcome.error.exit_code == 4
    assert outcome.error.last_lines == ["no rule"]
    assert "hunter2" not in repr(outcome)
    assert "[a 2/2] RUN" in (outcome.error.step or "")
