"""What every `Provider` must keep. Subclass `ProviderSuite`, say how requests are made, and run it.

Nothing here knows an engine: what only some can do is asked for by `capabilities`.
"""

import io
import itertools
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from hashlib import sha256
from typing import Any

import pytest
import trio

from blacktree.errors import StepFailed
from blacktree.providers.base import Budget, BuildRequest, Entry, Provider, Unproven

CHUNK = 64 * 1024


class Files:
    """A build context from a dict: path to content. `modes` for anything but plain files (a symlink's is 0o120000)."""

    def __init__(self, files: dict[str, bytes], *, key: str = "test", modes: dict[str, int] | None = None) -> None:
        self.files = files
        self.key = key
        self.modes = modes or {}
        self.asked: list[str] = []

    async def entries(self) -> list[Entry]:
        return [
            Entry(path, self.modes.get(path, 0o100644), len(data), sha256(data).hexdigest())
            for path, data in sorted(self.files.items(), key=lambda item: item[0].split("/"))
        ]

    @asynccontextmanager
    async def read(self, entries: Collection[Entry]) -> AsyncIterator[AsyncIterator[tuple[Entry, bytes]]]:
        self.asked += [entry.path for entry in entries]
        async with aclosing(self._chunks(entries)) as chunks:
            yield chunks

    async def _chunks(self, entries: Collection[Entry]) -> AsyncGenerator[tuple[Entry, bytes], None]:
        for entry in entries:
            data = self.files[entry.path]
            for start in range(0, max(1, len(data)), CHUNK):
                await trio.lowlevel.checkpoint()
                yield entry, data[start : start + CHUNK]

    @asynccontextmanager
    async def tar(self) -> AsyncIterator[AsyncIterator[bytes]]:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for entry in await self.entries():
                info = tarfile.TarInfo(entry.path)
                info.mode = entry.mode & 0o777
                if entry.mode == 0o120000:
                    info.type, info.linkname = tarfile.SYMTYPE, self.files[entry.path].decode()
                    archive.addfile(info)
                else:
                    info.size = entry.size
                    archive.addfile(info, io.BytesIO(self.files[entry.path]))
        async with aclosing(self._pieces(buffer.getvalue())) as pieces:
            yield pieces

    async def _pieces(self, data: bytes) -> AsyncGenerator[bytes, None]:
        for start in range(0, len(data), CHUNK):
            await trio.lowlevel.checkpoint()
            yield data[start : start + CHUNK]


class Recorder:
    """A sink that keeps everything and lets a test wait for something. It fails on what no sink should be told."""

    def __init__(self) -> None:
        self.started: dict[str, str] = {}
        self.finished: dict[str, tuple[str, bool, float, bool]] = {}
        self.data: dict[tuple[str, str], bytearray] = {}
        self.notices: list[tuple[str, str, str]] = []
        self.moved: list[tuple[str, int, int, str]] = []
        self.longest = 0
        self._changed = trio.Event()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def step_started(self, step: str, name: str) -> None:
        await trio.lowlevel.checkpoint()
        assert 0 < len(step) <= 64
        assert step not in self.started, f"{step} starts twice"
        assert step not in self.finished, f"{step} starts after its end"
        self.started[step] = name
        self._change()

    async def step_finished(self, step: str, name: str, *, cached: bool, seconds: float, ok: bool) -> None:
        await trio.lowlevel.checkpoint()
        assert step not in self.finished, f"{step} ends twice"
        assert step in self.started or cached, f"{step} ends without a start"
        assert seconds >= 0
        self.finished[step] = (name, cached, seconds, ok)
        self._change()

    async def output(self, step: str, stream: str, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.longest = max(self.longest, len(data))
        self.data.setdefault((step, stream), bytearray()).extend(data)
        self._change()

    async def progress(self, step: str, current: int, total: int, unit: str) -> None:
        await trio.lowlevel.checkpoint()
        self.moved.append((step, current, total, unit))

    async def notice(self, code: str, text: str, *, step: str = "") -> None:
        await trio.lowlevel.checkpoint()
        self.notices.append((code, text, step))
        self._change()

    @property
    def text(self) -> bytes:
        """All output of all steps."""
        return b"".join(bytes(data) for data in self.data.values())

    def ended(self, part: str) -> tuple[str, bool, float, bool]:
        """The one finished step whose name holds `part`: name, cached, seconds, ok."""
        found = [each for each in self.finished.values() if part in each[0]]
        assert len(found) == 1, (part, self.finished)
        return found[0]

    async def until(self, part: bytes, seconds: float = 40) -> None:
        """Wait until the output holds `part`."""
        seen: dict[tuple[str, str], int] = {}
        with trio.fail_after(seconds):
            # Each time only what is new: to read a flood from its beginning again and again takes for ever.
            while not any(part in data[seen.get(key, 0) :] for key, data in self.data.items()):
                seen = {key: max(0, len(data) - len(part) + 1) for key, data in self.data.items()}
                await self._changed.wait()

    async def until_step(self, part: str, seconds: float = 40) -> None:
        """Wait until a step whose name holds `part` has started."""
        with trio.fail_after(seconds):
            while not any(part in name for name in self.started.values()):
                await self._changed.wait()


_numbers = itertools.count(1)


def new_job() -> str:
    """A job id that this run has not used."""
    return f"contract-{next(_numbers)}"


class ProviderSuite:
    """Subclass it with an async fixture `provider` and the three requests."""

    # "cache": an equal build again is cached. "tags": names are kept and checked.
    capabilities: frozenset[str] = frozenset()

    def succeeding(self, job_id: str) -> BuildRequest:
        """A build that prints `hello` and succeeds."""
        raise NotImplementedError

    def failing(self, job_id: str) -> BuildRequest:
        """A build with a step that ends with exit code 7."""
        raise NotImplementedError

    def endless(self, job_id: str) -> BuildRequest:
        """A build that prints `under way` and then never ends by itself."""
        raise NotImplementedError

    def destination(self) -> AbstractContextManager[str]:
        """An image's name (without tag) that can be pushed to; every image of `succeeding` has layers of its own."""
        pytest.skip("pushes nowhere")

    def stuck(self) -> AbstractContextManager[str]:
        """As `destination`, but a push there never comes to its end."""
        pytest.skip("pushes nowhere")

    async def pushed(self, provider: Provider, name: str, **more: Any) -> tuple[str, Recorder]:
        """Build, name and push; the digest, and what the push told."""
        image = await provider.build(self.pushable(new_job()), Recorder())
        sink = Recorder()
        await provider.tag(image.id, [name])
        try:
            return await provider.push(name, None, sink, **more), sink
        finally:
            with trio.CancelScope(shield=True):
                await provider.untag([name])

    def pushable(self, job_id: str) -> BuildRequest:
        """A build whose image is pushed."""
        return self.succeeding(job_id)

    async def test_push_answers_the_digest_and_tells_its_layers(self, provider: Provider) -> None:
        hints: list[int] = []
        with self.destination() as name:
            digest, sink = await self.pushed(provider, f"{name}:one", nearly=lambda: hints.append(1))
        assert len(hints) <= 1
        assert digest.startswith("sha256:")
        assert sink.started
        assert all(step.startswith("push/") for step in sink.started)
        assert set(sink.started) <= set(sink.finished)
        assert all(ok for _, _, _, ok in sink.finished.values())
        assert sink.moved
        assert all(0 <= current <= total and unit == "bytes" for _, current, total, unit in sink.moved)

    async def test_a_push_of_what_is_not_there(self, provider: Provider) -> None:
        with self.destination() as name, pytest.raises(StepFailed) as caught:
            await provider.push(f"{name}:nothing", None, Recorder())
        assert caught.value.code == "image_gone"

    async def test_a_push_that_is_cancelled_ends_at_once(self, provider: Provider) -> None:
        with self.stuck() as name, trio.fail_after(60):
            sinks: list[Recorder] = []
            async with trio.open_nursery() as nursery:
                image = await provider.build(self.pushable(new_job()), Recorder())
                await provider.tag(image.id, [f"{name}:one"])
                sinks.append(Recorder())
                nursery.start_soon(provider.push, f"{name}:one", None, sinks[0])
                await sinks[0].until_step("push")
                nursery.cancel_scope.cancel()
            assert set(sinks[0].started) <= set(sinks[0].finished)
            assert not any(ok for _, _, _, ok in sinks[0].finished.values())
            await provider.untag([f"{name}:one"])

    async def test_a_push_in_which_nothing_moves_is_ended(self, provider: Provider) -> None:
        with self.stuck() as name, trio.fail_after(60), pytest.raises(StepFailed) as caught:
            await self.pushed(provider, f"{name}:one", stall_seconds=0.5)
        assert (caught.value.code, caught.value.again) == ("registry_slow", True)

    async def test_names_are_taken_away_and_again(self, provider: Provider) -> None:
        image = await provider.build(self.succeeding(new_job()), Recorder())
        names = ["blacktree-test/untag:one", "blacktree-test/untag:two"]
        await provider.tag(image.id, names)
        await provider.untag(names[:1])
        await provider.untag(names[:1])
        await provider.untag(names[1:])

    async def test_check_takes_builds(self, provider: Provider) -> None:
        health = await provider.check()
        assert health.refusal == ""
        assert provider.name

    async def test_success(self, provider: Provider) -> None:
        job = new_job()
        sink = Recorder()
        image = await provider.build(self.succeeding(job), sink)
        assert image.id
        assert b"hello" in sink.text
        assert set(sink.started) <= set(sink.finished)
        assert all(ok for _, _, _, ok in sink.finished.values())
        assert await provider.remaining(job) == []

    async def test_the_same_again_is_cached(self, provider: Provider) -> None:
        if "cache" not in self.capabilities:
            pytest.skip("no cache")
        request = self.succeeding(new_job())
        first, second = Recorder(), Recorder()
        await provider.build(request, first)
        await provider.build(request, second)
        assert not any(cached for name, cached, _, _ in first.finished.values() if "echo" in name)
        assert [cached for name, cached, _, _ in second.finished.values() if "echo" in name] == [True]

    async def test_a_failing_step(self, provider: Provider) -> None:
        job = new_job()
        sink = Recorder()
        with pytest.raises(StepFailed) as caught:
            await provider.build(self.failing(job), sink)
        assert caught.value.exit_code == 7
        assert caught.value.again is False
        assert caught.value.step
        assert caught.value.message
        assert not all(ok for _, _, _, ok in sink.finished.values())
        assert set(sink.started) <= set(sink.finished)
        assert await provider.remaining(job) == []

    async def test_cancel_in_mid_step_leaves_nothing(self, provider: Provider) -> None:
        job = new_job()
        sink = Recorder()
        caught = False
        with trio.fail_after(40):
            async with trio.open_nursery() as nursery:

                async def build() -> None:
                    nonlocal caught
                    try:
                        await provider.build(self.endless(job), sink)
                    except trio.Cancelled:
                        caught = True
                        raise

                nursery.start_soon(build)
                await sink.until(b"under way")
                nursery.cancel_scope.cancel()
        assert caught, "the cancellation must come out as it is"
        assert await provider.remaining(job) == []

    async def test_cancel_before_anything_leaves_nothing(self, provider: Provider) -> None:
        job = new_job()
        with trio.fail_after(40), trio.CancelScope() as scope:
            scope.cancel()
            await provider.build(self.endless(job), Recorder())
        assert scope.cancelled_caught
        assert await provider.remaining(job) == []

    async def test_a_sink_that_blocks_does_not_hold_a_cancel(self, provider: Provider) -> None:
        job = new_job()

        class Stuck(Recorder):
            async def output(self, step: str, stream: str, data: bytes) -> None:
                await super().output(step, stream, data)
                if b"under way" in self.text:
                    await trio.sleep_forever()

        sink = Stuck()
        with trio.fail_after(40):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(provider.build, self.endless(job), sink)
                await sink.until(b"under way")
                nursery.cancel_scope.cancel()
        assert await provider.remaining(job) == []

    async def test_an_error_of_the_sink_comes_out_and_leaves_nothing(self, provider: Provider) -> None:
        job = new_job()

        class Breaking(Recorder):
            async def output(self, step: str, stream: str, data: bytes) -> None:
                raise StepFailed("the sink is broken", code="sink_broken")

        with trio.fail_after(40), pytest.raises(StepFailed) as caught:
            await provider.build(self.endless(job), Breaking())
        assert caught.value.code == "sink_broken"
        assert await provider.remaining(job) == []

    async def test_two_at_once_and_one_is_cancelled(self, provider: Provider) -> None:
        stays, goes = new_job(), new_job()
        endless, good = Recorder(), Recorder()
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                scope = trio.CancelScope()

                async def cancelled() -> None:
                    with scope:
                        await provider.build(self.endless(goes), endless)

                nursery.start_soon(cancelled)
                await endless.until(b"under way")
                image = await provider.build(self.succeeding(stays), good)
                assert image.id
                assert b"hello" in good.text
                scope.cancel()
        assert scope.cancelled_caught
        assert await provider.remaining(goes) == []
        assert await provider.remaining(stays) == []

    async def test_tags_are_set_and_set_again(self, provider: Provider) -> None:
        image = await provider.build(self.succeeding(new_job()), Recorder())
        names = ["blacktree-test/contract:one", "blacktree-test/contract:two"]
        await provider.tag(image.id, names)
        await provider.tag(image.id, names)

    async def test_a_name_that_is_refused(self, provider: Provider) -> None:
        if "tags" not in self.capabilities:
            pytest.skip("takes every name")
        image = await provider.build(self.succeeding(new_job()), Recorder())
        with pytest.raises(StepFailed):
            await provider.tag(image.id, ["UPPER/case:x"])

    async def test_sweep_leaves_nothing_to_sweep(self, provider: Provider) -> None:
        await provider.sweep([])
        job = new_job()
        await provider.build(self.succeeding(job), Recorder())
        assert await provider.sweep([job]) == []
        await provider.sweep([])
        assert await provider.sweep([]) == []

    async def test_prune_within_the_budget_frees_nothing(self, provider: Provider) -> None:
        await provider.build(self.succeeding(new_job()), Recorder())
        assert await provider.prune(Budget(image_bytes=1 << 50, cache_bytes=1 << 50)) == 0

    def test_nothing_of_a_request_is_printed(self) -> None:
        request = self.succeeding(new_job())
        assert "secret" not in repr(request).lower()
        assert Unproven("what").what == "what"
