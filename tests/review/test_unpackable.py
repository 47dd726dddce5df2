"""A job that cannot be made into an assignment ends with the reason, also after a restart; it is nobody's for ever."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from blacktree.clock import now
from blacktree.errors import BadRequest, StorageFailed
from blacktree.job import Attempt, Job, JobState
from blacktree.orchestrator.clonetokens import CloneTokens
from blacktree.spec import JobSpec, spec_from
from tests.orchestrator.conftest import TOKEN, House, open_house
from tests.parts.toy_worker import ToyWorker
from tests.storage.test_sqlite import opened


@pytest.mark.parametrize("name", [".", ".."])
def test_no_secret_is_named_like_a_directory(name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        spec_from({"repository": "https://x/y", "secrets": ["a", name]})
    assert caught.value.path == "spec.secrets[1]"


async def goes_on(house: House) -> None:
    assert (await house.finished(await house.submit())).state == "succeeded"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path, memory=True) as opened:
        yield opened


async def test_one_that_got_on_record_all_the_same_fails(house: House) -> None:
    await house.worker(slots=1, automatic=True)
    with trio.fail_after(40):
        job = await house.finished(await house.submit(secrets=[".."]))
        assert job.state == "failed"
        assert job.error is not None
        assert "cannot name a secret" in job.error.message
        await goes_on(house)


async def test_what_cannot_be_read_for_it_fails_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def of(self: CloneTokens, job: Job) -> str:
        raise StorageFailed("as the test wants", code="state_damaged", again=False)

    await house.worker(slots=1, automatic=True)
    with trio.fail_after(40):
        with monkeypatch.context() as patch:
            patch.setattr(CloneTokens, "of", of)
            job = await house.finished(await house.submit())
        assert job.state == "failed"
        assert job.error is not None
        assert job.error.code == "state_damaged"
        await goes_on(house)


async def test_an_adopted_one_does_not_end_the_farm(tmp_path: Path) -> None:
    worker, time = ToyWorker("w", slots=1, automatic=True), now()
    attempt = Attempt(attempt=1, worker_id="w", assigned_at=time, token="t", incarnation=worker.incarnation)
    job = Job(
        id="j",
        state=JobState.ASSIGNED,
        spec=JobSpec(repository="https://x/y", secrets=[".."]),
        created_at=time,
        queued_at=time,
        attempt=1,
        attempts=[attempt],
        worker_id="w",
    )
    async with opened(tmp_path / "state") as store:
        await store.create(job, [], [])
    async with open_house(tmp_path) as house:
        await house.nursery.start(partial(worker.run, house.address, TOKEN, house.directory))
        with trio.fail_after(40):
            assert (await house.finished("j")).state == "failed"
            await goes_on(house)
