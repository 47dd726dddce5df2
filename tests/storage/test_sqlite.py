"""The life of a state directory: made, locked, migrated, reopened, closed with work at hand."""

import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from blacktree.errors import StorageFailed
from blacktree.job import JobState
from blacktree.storage import pack
from blacktree.storage.base import Outgoing, QueueItem
from blacktree.storage.sqlite import SqliteStore
from tests.contracts.store import T0, a_job, adding, everything, lines, queued, to


@asynccontextmanager
async def opened(directory: Path, **options: Any) -> AsyncIterator[SqliteStore]:
    """A running store, stopped at the end."""
    store = SqliteStore(directory, **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


async def refusal(directory: Path) -> StorageFailed:
    """Why this directory cannot be opened."""
    with pytest.raises(BaseExceptionGroup) as caught:
        async with opened(directory):
            pass
    found: BaseException = caught.value
    while isinstance(found, BaseExceptionGroup):
        [found] = found.exceptions
    assert isinstance(found, StorageFailed)
    return found


async def test_everything_is_there_again_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        await store.create(a_job("a"), [queued()], [Outgoing(kind="ticket", job_id="a", generation=1)])
        await store.change("a", adding(lines("one", "two")))
        await store.create(a_job("b"), [queued()], [])
        await store.change("b", to(JobState.CANCELED, finished_at=T0))
        await store.queue_put("q", [QueueItem(body=b"1"), QueueItem(body=b"2")])
        await store.note("started", "hello")
        await store.meta("farm", "f")
        job = await store.get("a")
        rows = await store.outgoing()
    async with opened(tmp_path / "state") as store:
        assert await store.get("a") == job
        assert await store.outgoing() == rows
        assert await store.counts() == {JobState.QUEUED: 1, JobState.CANCELED: 1}
        assert await store.queue_depth("q") == 2
        assert await store.meta("farm", "other") == "f"
        assert (await store.note("started", "again")).seq == 2
        commit = await store.change("a", adding(lines("three")))
        assert commit.first_seq == 4
        [new] = await store.queue_put("q", [QueueItem(body=b"3")], maximum=2)
        assert [item.body for item in await store.queue_take("q", 9, ())] == [b"2", b"3"]
        assert new > 2
        assert [entry[2] for entry in await everything(store, "a")] == ["", "one", "two", "three"]
        assert await store.read_text("a", 0, 99) == b"one\ntwo\nthree\n"


async def test_only_the_owner_may_look(tmp_path: Path) -> None:
    state = tmp_path / "new" / "state"
    async with opened(state) as store:
        await store.create(a_job("a"), [queued()], [])
        await store.change("a", adding(lines("secret?")))
        for path in [state, *state.rglob("*")]:
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600), path
        assert (state / "logs" / "a" / "a" / "000001.seg").exists()


async def test_the_end_does_not_wait_for_a_look_at_every_jobs_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (tmp_path / "state" / "logs" / "a" / f"a{number}").mkdir(parents=True)
    store, looked = SqliteStore(tmp_path / "state"), list[Path]()

    def left(connection: sqlite3.Connection, path: Path) -> list[Path]:
        looked.append(path)
        if len(looked) == 1:
            trio.from_thread.run_sync(nursery.cancel_scope.cancel)
            while not store._packer._stopped:
                time.sleep(0.001)
        return []

    monkeypatch.setattr(pack, "_left", left)
    monkeypatch.setattr(pack, "_LOOKED_AT", 1)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await trio.sleep_forever()
    assert len(looked) == 1


async def test_a_job_that_is_forgotten_during_a_look_at_its_directory_is_passed_over(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        await store.create(a_job("a"), [queued()], [])
        assert (
            await store._ask(lambda connection: pack._left(connection, tmp_path / "state" / "logs" / "a" / "a")) == []
        )


async def test_a_second_process_is_refused_at_once(tmp_path: Path) -> None:
    script = (
        "import sys, trio; from pathlib import Path; from blacktree.storage.sqlite import SqliteStore\n"
        "from blacktree.errors import StorageFailed\n"
        "async def main():\n"
        "    try: await SqliteStore(Path(sys.argv[1])).run()\n"
        "    except* StorageFailed as group: print(group.exceptions[0].code, group.exceptions[0])\n"
        "trio.run(main)"
    )
    async with opened(tmp_path / "state") as store:
        with trio.fail_after(40):
            done = await trio.run_process(
                [sys.executable, "-c", script, str(tmp_path / "state")], capture_stdout=True, stderr=subprocess.STDOUT
            )
        said = done.stdout.decode()
        assert said.startswith("state_in_use")
        assert f"pid {os.getpid()}" in said
        # The first one is none the worse for it.
        await store.create(a_job(), [queued()], [])
    assert (await refusal_while_open(tmp_path / "state")).code == "state_in_use"


async def refusal_while_open(directory: Path) -> StorageFailed:
    async with opened(directory):
        return await refusal(directory)


async def test_a_newer_schema_is_refused_with_advice(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        await store.create(a_job(), [queued()], [])
    with sqlite3.connect(tmp_path / "state" / "blacktree.db") as connection:
        connection.execute("PRAGMA user_version = 9999")
    connection.close()
    error = await refusal(tmp_path / "state")
    assert error.code == "state_too_new"
    assert error.advice
    assert not error.again


@pytest.mark.parametrize("how", ["header", "page", "text"])
async def test_a_damaged_database_is_named(tmp_path: Path, how: str) -> None:
    async with opened(tmp_path / "state") as store:
        for number in range(50):
            await store.create(a_job(f"job-{number}"), [queued()], [])
    database = tmp_path / "state" / "blacktree.db"
    if how == "text":
        database.write_text("this is no database at all" * 400)
    else:
        with database.open("r+b") as file:
            file.seek(0 if how == "header" else 4096 * 2)
            file.write(os.urandom(4096))
    error = await refusal(tmp_path / "state")
    assert error.code == "state_damaged"
    assert str(database) in error.message
    assert "backup" in error.advice
    assert not error.again
    # The refused start gave the lock back.
    assert (await refusal(tmp_path / "state")).code == "state_damaged"


async def test_what_was_handed_over_before_the_end_is_committed(tmp_path: Path) -> None:
    """The worst moment: everything is cancelled while a hundred changes wait for the writer."""
    heard: list[int] = []
    async with opened(tmp_path / "state") as store:
        await store.create(a_job(), [queued()], [])
    store = SqliteStore(tmp_path / "state")
    store.listen(lambda commit: heard.append(commit.first_seq))
    answered = 0

    async def one(number: int) -> None:
        nonlocal answered
        await store.change("job-1", adding(lines(str(number))))
        answered += 1

    async with trio.open_nursery() as callers:
        async with trio.open_nursery() as life:
            await life.start(store.run)
            for number in range(100):
                callers.start_soon(one, number)
            await trio.testing.wait_all_tasks_blocked()
            life.cancel_scope.cancel()
    assert answered == 100
    assert heard == list(range(2, 102))
    async with opened(tmp_path / "state") as store:
        assert len(await everything(store, "job-1")) == 101


async def test_callers_cancelled_at_any_turn_leave_a_whole_log(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        await store.create(a_job(), [queued()], [])
        heard: list[int] = []
        store.listen(lambda commit: heard.append(commit.job.next_seq))
        for turn in range(40):
            with trio.move_on_after(0.0005 * (turn % 8)):
                async with trio.open_nursery() as nursery:
                    for number in range(5):
                        nursery.start_soon(store.change, "job-1", adding(lines(f"{turn}", f"{number}")))
        await store.change("job-1", adding(lines("end", "end")))
    async with opened(tmp_path / "state") as store:
        assert len(await everything(store, "job-1")) == 1 + 2 * len(heard)


async def test_a_job_that_left_the_cache_is_found_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        async with trio.open_nursery() as nursery:
            for number in range(1500):
                nursery.start_soon(store.create, a_job(f"job-{number}"), [queued()], [])
        commit = await store.change("job-0", to(JobState.ASSIGNED))
        assert commit.first_seq == 2
        assert (await store.get("job-1")).next_seq == 2
        assert (await store.counts())[JobState.QUEUED] == 1499
