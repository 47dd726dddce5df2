"""A disk that is full, nearly full, or read-only: a clear error, nothing half-recorded, and on it goes afterwards."""

import errno
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from blacktree.errors import StorageFailed
from blacktree.event import Lines
from blacktree.job import JobState
from blacktree.storage.base import Outgoing
from blacktree.storage.sqlite import SqliteStore
from blacktree.storage.writer import Call, Writer
from tests.contracts.store import T0, a_job, adding, everything, lines, queued, to
from tests.parts import disk
from tests.storage.test_sqlite import opened, refusal


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB of its own."""
    with disk.small_disk(tmp_path / "disk", "size=4m") as place:
        yield place


async def test_a_full_disk_is_ridden_out(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    async with opened(small_disk / "state") as store:
        await store.create(a_job("a"), [queued()], [])
        await store.change("a", adding(lines("before")))
        ballast.write_bytes(bytes(1024 * 1024))
        answered = 2
        with pytest.raises(StorageFailed) as caught:
            for _ in range(200):
                await store.change("a", adding(lines(*["x" * 999] * 100)))
                answered += 100
        assert caught.value.code == "disk_full"
        assert caught.value.again
        assert caught.value.advice
        assert "full" in await store.health()
        assert (await store.get("a")).next_seq == answered + 1
        # Many at once: each is told for itself, none is half there.
        failures: list[str] = []

        async def one(number: int) -> None:
            try:
                await store.create(a_job(f"b{number}", ref="r" * 900), [queued()], [])
                await store.change(f"b{number}", adding(lines(*["y" * 999] * 300)))
            except StorageFailed as error:
                failures.append(error.code)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(one, number)
        assert set(failures) == {"disk_full"}
        for number in range(10):
            if f"b{number}" in {job.id for job in (await store.find([], limit=50)).jobs}:
                length = len(await everything(store, f"b{number}"))
                assert length in (1, 301)
        assert len(await everything(store, "a")) == answered
        ballast.unlink()
        with trio.fail_after(40):
            while await store.health():
                await trio.sleep(0.1)
        commit = await store.change("a", adding(lines("after")))
        assert commit.first_seq == answered + 1
    async with opened(small_disk / "state") as store:
        found = await everything(store, "a")
        assert len(found) == answered + 1
        assert found[-1][2] == "after"
        assert not await store.noted(1)


async def test_rows_of_the_outbox_are_numbered_on_after_trouble(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        rows = [Outgoing(kind="status", job_id="a"), Outgoing(kind="status", job_id="a")]
        seen = (await store.create(a_job("a"), [queued()], rows)).outgoing[-1].id
        await store.published([row.id for row in await store.outgoing()])

        def full(writer: Writer) -> None:
            raise OSError(errno.ENOSPC, "as the test wants")

        with pytest.raises(StorageFailed):
            await store._group(Call(full))
        # Whoever reads on from what it has seen finds what comes now.
        await store.create(a_job("b"), [queued()], [Outgoing(kind="status", job_id="b")])
        assert [row.job_id for row in await store.outgoing(after=seen)] == ["b"]


async def test_a_nearly_full_disk_takes_no_new_jobs(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        await store.create(a_job("a"), [queued()], [])
    async with opened(tmp_path / "state", minimum_free_bytes=1 << 60) as store:
        assert "minimum" in await store.health()
        with pytest.raises(StorageFailed) as caught:
            await store.create(a_job("b"), [queued()], [])
        assert caught.value.code == "disk_full"
        # What is on record goes on, and the first submission can still be looked up.
        assert (await store.change("a", adding(lines("line")))).first_seq == 2
        assert not (await store.create(a_job("a"), [queued()], [])).changed


def mounted(*options: str) -> None:
    """`mount`, at once: nothing else runs here that could be held up."""
    subprocess.run(["mount", *options], check=True)


async def test_a_disk_without_room_for_files_takes_no_jobs(tmp_path: Path) -> None:
    with disk.few_files(tmp_path / "disk") as place:
        async with opened(place / "state", minimum_free_bytes=1) as store:
            assert "inodes" in await store.health()
            with pytest.raises(StorageFailed) as caught:
                await store.create(a_job("a"), [queued()], [])
            assert (caught.value.code, caught.value.again) == ("disk_full", True)


async def test_a_read_only_directory_is_refused(small_disk: Path) -> None:
    state = small_disk / "state"
    async with opened(state) as store:
        await store.create(a_job("a"), [queued()], [])
    mounted("-o", "remount,ro", str(small_disk))
    error = await refusal(state)
    assert error.code == "read_only"
    assert str(state) in error.message
    assert error.advice
    mounted("-o", "remount,rw", str(small_disk))
    async with opened(state) as store:
        assert (await store.get("a")).next_seq == 2


async def test_logs_that_turn_read_only_are_ridden_out(small_disk: Path) -> None:
    state = small_disk / "state"
    async with opened(state) as store:
        await store.create(a_job("a"), [queued()], [])
        mounted("--bind", str(state / "logs"), str(state / "logs"))
        try:
            mounted("-o", "remount,bind,ro", str(state / "logs"))
            with pytest.raises(StorageFailed) as caught:
                await store.change("a", adding(lines("a new segment is needed")))
            assert caught.value.code == "read_only"
            assert "cannot be written" in await store.health()
            assert (await store.get("a")).next_seq == 2
            # What needs no segment goes on.
            assert (await store.change("a", to(JobState.ASSIGNED))).first_seq == 2
            assert "cannot be written" in await store.health()
            mounted("-o", "remount,bind,rw", str(state / "logs"))
            assert await store.health() == ""
            assert (await store.change("a", adding(lines("line")))).first_seq == 3
            assert len(await everything(store, "a")) == 3
        finally:
            await trio.run_process(["umount", "-l", str(state / "logs")])


async def test_a_file_size_limit_is_a_full_disk(tmp_path: Path) -> None:
    """EFBIG from a limit on this process alone: the write is refused, the tail is given back, later ones succeed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    store = SqliteStore(tmp_path / "state")
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await store.create(a_job("a"), [queued()], [])
        await store.change("a", adding(lines("before")))
        segment = tmp_path / "state" / "logs" / "a" / "a" / "000001.seg"
        size = segment.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, hard))
        try:
            with pytest.raises(StorageFailed) as caught:
                await store.change("a", adding(Lines(T0, 1, "s", "stdout", ("x" * 999 + "\n") * 2000)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.code == "disk_full"
        assert segment.stat().st_size == size
        assert (await store.change("a", adding(lines("after")))).first_seq == 3
        assert [entry[2] for entry in await everything(store, "a")] == ["", "before", "after"]
        nursery.cancel_scope.cancel()


async def test_a_state_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("x")
    error = await refusal(tmp_path / "state")
    assert str(tmp_path / "state") in error.message
