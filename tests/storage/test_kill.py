"""kill -9 in the middle of a stream of commits: what was answered is there, once, without a gap."""

import random
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.contracts.store import everything
from tests.storage.test_sqlite import opened

ROOT = Path(__file__).parent.parent.parent


async def until_killed(directory: Path, seed: int, acknowledgements: int) -> dict[str, int]:
    """Run the child until it has said this much, kill it, and answer the last thing it said of each subject."""
    answered: dict[str, int] = {}
    left = b""
    count = 0
    async with trio.open_nursery() as nursery:
        command = [sys.executable, "-m", "tests.storage.committing", str(directory), str(seed)]
        process: trio.Process = await nursery.start(
            partial(trio.run_process, command, stdout=subprocess.PIPE, cwd=ROOT, check=False)
        )
        assert process.stdout is not None
        with trio.fail_after(50):
            async for chunk in process.stdout:
                *whole, left = (left + chunk).split(b"\n")
                for line in whole:
                    count += 1
                    if b" " in line:
                        subject, number = line.decode().split()
                        answered[subject] = max(answered.get(subject, 0), int(number))
                if count >= acknowledgements:
                    process.kill()
    assert process.returncode == -9
    return answered


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_answered_is_lost(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    answered: dict[str, int] = {}
    # The later rounds start from what the earlier kills left behind.
    for round in range(2):
        answered |= await until_killed(tmp_path, seed * 10 + round, chance.randrange(20, 600))
        async with opened(tmp_path) as store:
            rows = {(row.job_id, row.generation) for row in await store.outgoing(limit=100_000)}
            queued = len(await store.queue_take("q", 100_000, ()))
            notes = await store.noted(1, limit=100_000)
            assert [note.seq for note in notes] == list(range(1, len(notes) + 1))
            assert len(notes) >= answered.get("note", 0)
            assert queued >= len(notes) - 8
            for number in range(8):
                job_id = f"job-{number}"
                job = await store.get(job_id)
                assert job.next_seq >= answered.get(job_id, 0)
                found = await everything(store, job_id)
                assert [entry[0] for entry in found] == list(range(1, job.next_seq))
                # Each record says its own number: nothing is doubled, nothing is out of place.
                assert [entry[2] for entry in found[1:]] == [str(entry[0]) for entry in found[1:]]
                marks = {(job_id, entry[0]) for entry in found if entry[1] == "Notice"}
                assert marks == {row for row in rows if row[0] == job_id}
                text = "".join(f"{entry[2]}\n" for entry in found if entry[1] == "log").encode()
                assert await store.read_text(job_id, 0, 10**8) == text
            assert not [note for note in notes if note.type == "log_damaged"]
