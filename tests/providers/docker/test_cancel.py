"""Cancelling a build on a real engine, at its worst moments: nothing of it is left, and it is shown."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest
import trio

from blacktree.providers.base import BuildRequest, Entry, Provider
from tests.contracts.provider import Files, Recorder, new_job
from tests.parts.engine import processes_with
from tests.providers.docker.requests import dockerfile, nonce, request

pytestmark = pytest.mark.docker

BUILDERS = pytest.mark.parametrize("builder", ["buildkit", "classic"])
# Ignores every polite signal, in the step's own process, in a child and in a child of another session; floods.
NASTY = (
    "RUN trap '' TERM INT HUP; echo {word}; "
    "(setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' {word} &) ; "
    "sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' {word} & "
    "(sh -c 'sleep 1000; echo' {word} &) & "
    "echo under way; {flood} while :; do sleep 1; done"
)


@BUILDERS
@pytest.mark.parametrize("flood", ["", "yes {word} & "])
async def test_a_step_that_will_not_die(provider: Provider, builder: str, flood: str) -> None:
    word = nonce()
    sink = Recorder()
    asked = request(NASTY.format(word=word, flood=flood.format(word=word)), builder=builder)
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(provider.build, asked, sink)
            await sink.until(b"under way")
            if flood:
                # Waited for in this order: of a flood the engine clips all but the beginning.
                await sink.until(f"{word}\n{word}\n".encode())
            assert processes_with(word)
            nursery.cancel_scope.cancel()
    assert processes_with(word) == []
    assert await provider.remaining(asked.job_id) == []


@BUILDERS
async def test_it_answers_long_before_the_step_would_end(provider: Provider, builder: str) -> None:
    word = nonce()
    sink = Recorder()
    asked = request(f"RUN echo under way {word}; sleep 1000", builder=builder)
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(provider.build, asked, sink)
            await sink.until(b"under way")
            nursery.cancel_scope.cancel()
    assert processes_with(word) == []


class Stalling(Files):
    """A context whose content stops half way."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(files, key=nonce())
        self.stalled = trio.Event()

    @asynccontextmanager
    async def read(self, entries: Collection[Entry]) -> AsyncIterator[AsyncIterator[tuple[Entry, bytes]]]:
        async with super().read(entries) as chunks:
            if any(entry.path == "big" for entry in entries) and len(list(entries)) > 0:
                self.stalled.set()
                await trio.sleep_forever()
            yield chunks

    @asynccontextmanager
    async def tar(self) -> AsyncIterator[AsyncIterator[bytes]]:
        async with super().tar() as pieces:

            async def half() -> AsyncIterator[bytes]:
                async for piece in pieces:
                    yield piece
                    self.stalled.set()
                    await trio.sleep_forever()

            yield half()


@BUILDERS
async def test_while_the_context_is_sent(provider: Provider, builder: str) -> None:
    context = Stalling({"Dockerfile": dockerfile("COPY big /big"), "big": b"x" * 500_000})
    asked = BuildRequest(job_id=new_job(), attempt=1, context=context, builder=builder)
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(provider.build, asked, Recorder())
            await context.stalled.wait()
            nursery.cancel_scope.cancel()
    assert await provider.remaining(asked.job_id) == []


async def test_while_the_image_is_exported(provider: Provider) -> None:
    sink = Recorder()
    asked = request(f"RUN echo {nonce()}; dd if=/dev/urandom of=/big bs=1M count=64 2>/dev/null")
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(provider.build, asked, sink)
            await sink.until_step("exporting")
            nursery.cancel_scope.cancel()
    assert await provider.remaining(asked.job_id) == []


@BUILDERS
async def test_in_the_moment_the_step_starts(provider: Provider, builder: str) -> None:
    """The engine may be about to start the step when the cancellation comes: that it did not, or ended it, is shown."""
    word = nonce()
    sink = Recorder()
    asked = request(f"RUN sh -c 'sleep 1000; true' {word}", builder=builder)
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(provider.build, asked, sink)
            await sink.until_step(word)
            nursery.cancel_scope.cancel()
    assert processes_with(word) == []
    assert await provider.remaining(asked.job_id) == []


async def test_a_step_shared_with_another_build_goes_on(provider: Provider) -> None:
    """The engine runs equal steps of two builds once: the one that stays keeps it, the other has ended."""
    word = nonce()
    lines = (f"RUN echo under way {word}; sh -c 'sleep 3; true' {word}; echo finished",)
    stays, goes = Recorder(), Recorder()
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(provider.build, request(*lines), stays)
            await stays.until(b"under way")
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as other:
                    other.start_soon(provider.build, request(*lines), goes)
                    await goes.until_step(word)
                    scope.cancel()
    assert b"finished" in stays.text


async def test_equal_commands_in_two_builds_are_told_apart(provider: Provider) -> None:
    """Only the bases differ: the cancelled build's step goes, its neighbour's stays."""
    word = nonce()
    run = f"RUN echo under way {word}; sh -c 'sleep 8; true' {word}; echo finished"
    stays, goes = Recorder(), Recorder()
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(provider.build, request("ENV A=1", run), stays)
            await stays.until(b"under way")
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as other:
                    other.start_soon(provider.build, request("ENV A=2", run), goes)
                    await goes.until(b"under way")
                    scope.cancel()
    assert b"finished" in stays.text
    assert b"finished" not in goes.text
