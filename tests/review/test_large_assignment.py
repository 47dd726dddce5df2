"""A job that fits in no message ends, and says why: nobody asks a worker again every second."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from blacktree.orchestrator.member import Member
from blacktree.rpc.peer import Answer, Assignment
from tests.orchestrator.conftest import open_house


async def test_a_job_that_fits_in_no_message_fails_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    names = [f"S{number}" for number in range(10)]
    for name in names:
        (secrets / name).write_bytes(b"x" * 500 * 1024)
        (secrets / name).chmod(0o600)
    asked: list[int] = []
    ask = Member._run_jobs

    async def counting(member: Member, assignments: Sequence[Assignment]) -> Sequence[Answer | Exception]:
        asked.append(len(assignments))
        return await ask(member, assignments)

    monkeypatch.setattr(Member, "_run_jobs", counting)
    async with open_house(tmp_path, memory=True, secrets_directory=str(secrets)) as house:
        await house.worker(slots=1, automatic=True)
        large = await house.submit(secrets=names)
        with trio.fail_after(40):
            job = await house.finished(large)
            small = await house.finished(await house.submit(secrets=names[:8]))
    assert job.state == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.retryable) == ("assignment_too_large", False)
    assert "secret" in job.error.advice
    assert "x" * 100 not in str(job)
    assert small.state == "succeeded"
    assert asked == [1]
