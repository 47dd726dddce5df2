"""Segment files: what a crash leaves is cut off, what a bad disk leaves is told, what is old is packed."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from blacktree.event import Lines, Notice, span
from blacktree.job import JobState
from blacktree.storage import pack
from tests.contracts.store import T0, a_job, adding, everything, lines, queued, to
from tests.storage.test_sqlite import opened


async def until(condition: Callable[[], bool], seconds: float = 40) -> None:
    """Wait for what a background thread does."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.01)


async def a_log(directory: Path, batches: int = 30, size: int = 20, width: int = 400) -> int:
    """A job with a mark, then batches of lines; answers the next number."""
    async with opened(directory) as store:
        await store.create(a_job("aa"), [queued()], [])
        for number in range(batches):
            await store.change("aa", adding(lines(*[f"{number}.{i} ".ljust(width, "x") for i in range(size)])))
            if number % 10 == 9:
                await store.change("aa", adding(Notice(T0, 1, "mark", f"mark {number}")))
        return (await store.get("aa")).next_seq


def segment(directory: Path, number: int = 1) -> Path:
    return directory / "logs" / "aa" / "aa" / f"{number:06d}.seg"


async def test_what_was_never_committed_is_cut_off(tmp_path: Path) -> None:
    next_seq = await a_log(tmp_path)
    size = segment(tmp_path).stat().st_size
    with segment(tmp_path).open("ab") as file:
        file.write(segment(tmp_path).read_bytes()[:5000])
    async with opened(tmp_path) as store:
        assert len(await everything(store, "aa")) == next_seq - 1
        await store.change("aa", adding(lines("after")))
        assert size < segment(tmp_path).stat().st_size < size + 5000
        found = await everything(store, "aa")
        assert found[-1] == (next_seq, "log", "after")
        assert await store.noted(1) == []


@pytest.mark.parametrize("how", ["short", "empty", "gone", "flipped payload", "flipped header", "zeroed middle"])
async def test_damage_is_told_number_by_number(tmp_path: Path, how: str) -> None:
    next_seq = await a_log(tmp_path)
    async with opened(tmp_path) as store:
        before = await everything(store, "aa")
        text = await store.read_text("aa", 0, 10**9)
    path = segment(tmp_path)
    data = bytearray(path.read_bytes())
    if how == "short":
        path.write_bytes(data[:150_000])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "gone":
        path.unlink()
    elif how == "flipped payload":
        data[100_000] ^= 0xFF
        path.write_bytes(data)
    elif how == "flipped header":
        data[1] ^= 0xFF
        path.write_bytes(data)
    else:
        data[50_000:120_000] = bytes(70_000)
        path.write_bytes(data)
    async with opened(tmp_path) as store:
        for limit in (1000, 7):
            after = await everything(store, "aa", limit=limit)
            assert [entry[0] for entry in after] == list(range(1, next_seq))
            lost = [entry[0] for entry, old in zip(after, before, strict=True) if entry != old]
            assert lost
            for seq in lost:
                [(at, record)] = await store.read("aa", seq, limit=1)
                assert at == seq
                assert isinstance(record, Notice)
                assert record.code == "log_damaged"
            # Marks are in the database and survive.
            assert [entry for entry in after if entry[2].startswith("mark")] == [
                entry for entry in before if entry[2].startswith("mark")
            ]
        shown = await store.read_text("aa", 0, 10**9)
        assert len(shown) == len(text) == await store.text_size("aa")
        assert all(b == ord("?") or b == a for a, b in zip(text, shown, strict=True))
        assert shown != text
        assert await store.read_text("aa", 70_000, 30_000) == shown[70_000:100_000]
        # The job goes on, behind the damage.
        await store.change("aa", adding(lines("after")))
        assert (await store.read("aa", next_seq))[0][1] == lines("after")
        assert await store.read_text("aa", len(text), 100) == b"after\n"
        with trio.fail_after(40):
            while not (notes := await store.noted(1)):
                await trio.sleep(0.01)
        assert [(note.type, note.subject) for note in notes] == [("log_damaged", "aa")]
    async with opened(tmp_path) as store:
        assert (await everything(store, "aa"))[-1] == (next_seq, "log", "after")


async def test_an_ended_jobs_segments_are_packed(tmp_path: Path) -> None:
    next_seq = await a_log(tmp_path, batches=60)
    old = segment(tmp_path).stat().st_size
    async with opened(tmp_path) as store:
        before = await everything(store, "aa")
        text = await store.read_text("aa", 0, 10**9)
        await store.change("aa", to(JobState.CANCELED, finished_at=T0))
        await until(lambda: not segment(tmp_path).exists())
        packed = segment(tmp_path).with_suffix(".z")
        assert packed.stat().st_size < old / 4
        assert packed.stat().st_mode & 0o777 == 0o600
        for _ in range(2):
            assert (await everything(store, "aa"))[:-1] == before
            assert await store.read_text("aa", 0, 10**9) == text
        for seq in range(1, next_seq, 97):
            assert (await store.read("aa", seq, limit=1))[0][0] == seq
        for offset in range(0, len(text), 9973):
            assert await store.read_text("aa", offset, 100) == text[offset : offset + 100]
        # What comes late, all the same, goes to a new segment.
        await store.change("aa", adding(lines("late")))
        assert segment(tmp_path, 2).exists()
    async with opened(tmp_path) as store:
        assert (await everything(store, "aa"))[-1] == (next_seq + 1, "log", "late")


async def test_packing_stopped_halfway_is_taken_up_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_log(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(pack, "_PAUSE_SECONDS", 1000)
        async with opened(tmp_path) as store:
            await store.change("aa", to(JobState.CANCELED, finished_at=T0))
            expected = await everything(store, "aa")
    # A crash between the renaming and the commit leaves both; one in the middle of writing leaves a `.new`.
    segment(tmp_path).with_suffix(".z").write_bytes(b"half")
    segment(tmp_path).with_suffix(".new").write_bytes(b"half")
    orphan = tmp_path / "logs" / "zz" / "zzz"
    orphan.mkdir(parents=True)
    (orphan / "000001.seg").write_bytes(b"x")
    async with opened(tmp_path) as store:
        assert await everything(store, "aa") == expected
        await until(lambda: not segment(tmp_path).exists())
        assert await everything(store, "aa") == expected
        await until(lambda: not segment(tmp_path).with_suffix(".new").exists() and not orphan.exists())


async def test_a_damaged_segment_is_not_packed(tmp_path: Path) -> None:
    await a_log(tmp_path)
    data = bytearray(segment(tmp_path).read_bytes())
    data[100_000] ^= 0xFF
    segment(tmp_path).write_bytes(data)
    assert pack.pack(_directory(tmp_path), "aa", 1, len(data)) is None
    assert not segment(tmp_path).with_suffix(".z").exists()
    assert not segment(tmp_path).with_suffix(".new").exists()


def _directory(path: Path):
    from blacktree.storage.directory import Directory

    return Directory(path)


async def test_retention_takes_the_files_too(tmp_path: Path) -> None:
    await a_log(tmp_path)
    async with opened(tmp_path) as store:
        await store.change("aa", to(JobState.CANCELED, finished_at=T0))
        assert await store.forget(T0.replace(year=2027)) == 1
        assert not segment(tmp_path).parent.exists()
        assert await store.counts() == {}


async def test_a_large_log_is_read_anywhere_in_constant_memory(tmp_path: Path) -> None:
    """96 MiB, rotated; reading a page anywhere needs memory for a page, not for the log."""
    width, size, batches = 1023, 1024, 96
    async with opened(tmp_path, segment_bytes=16 * 1024 * 1024) as store:
        await store.create(a_job("aa"), [queued()], [])
        filling = "x" * (width - 12)
        for batch in range(batches):
            text = "".join(f"{batch * size + i:012}{filling}\n" for i in range(size))
            await store.change("aa", adding(Lines(T0, 1, "s", "stdout", text)))
        total = batches * size
        assert await store.text_size("aa") == total * (width + 1)
        assert len(list(segment(tmp_path).parent.iterdir())) == 6
        text = ""
        tracemalloc.start()
        try:
            for line in (0, 1, total // 3, total // 2, total - 300, total - 1):
                page = await store.read("aa", 2 + line)
                assert page[0][0] == 2 + line
                assert sum(span(record) for _, record in page) <= 257
                record = page[0][1]
                assert isinstance(record, Lines)
                assert record.text.startswith(f"{line:012}x")
                offset = line * (width + 1) + 5
                assert await store.read_text("aa", offset, 7) == f"{line:012}".encode()[5:12]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * 1024 * 1024


async def test_a_reader_during_packing_sees_no_seam(tmp_path: Path) -> None:
    await a_log(tmp_path, batches=100)
    async with opened(tmp_path) as store:
        before = await everything(store, "aa")
        await store.change("aa", to(JobState.CANCELED, finished_at=T0))
        with trio.fail_after(40):
            while segment(tmp_path).exists():
                assert (await everything(store, "aa", limit=200))[:-1] == before
