"""What `/metrics` says of jobs is what is on record, also once some were forgotten."""

from pathlib import Path

import pytest
import trio

from blacktree.job import JobState
from blacktree.orchestrator import daemon, retention
from blacktree.storage.memory import MemoryStore
from tests.orchestrator.conftest import open_house


async def test_forgotten_jobs_are_no_longer_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    monkeypatch.setattr(daemon, "open_store", lambda *_, **__: store)
    monkeypatch.setattr(retention, "LOOK_SECONDS", 0.2)
    async with open_house(tmp_path, memory=True, retention_days=0.5 / 86400) as house:
        kept = await house.submit(pool="nobody")
        for _ in range(3):
            await house.control.cancel(await house.submit(pool="nobody"))
        with trio.fail_after(40):
            while (await store.counts()).get(JobState.CANCELED):
                await trio.sleep(0.02)
            while (figures := house.control.figures()["jobs"]).get("canceled"):
                await trio.sleep(0.02)
        assert figures["queued"] == 1
        assert (await house.control.job(kept)).job.state == "queued"
        assert {state: n for state, n in (await house.control.counts()).items() if n} == await store.counts()
