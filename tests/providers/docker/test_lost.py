"""An engine that goes away in mid-build: a dockerd of the test's own, killed."""

from collections.abc import Iterator

import pytest
import trio

from blacktree.errors import EngineLost
from blacktree.providers import open_provider
from blacktree.providers.base import ProviderSettings
from blacktree.providers.docker.leftovers import executions
from tests.contracts.provider import Recorder
from tests.parts.engine import PrivateEngine, can_start_engines, ensure_base, private_engine, processes_with
from tests.providers.docker.requests import nonce, request

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(not can_start_engines(), reason="needs root and dockerd"),
]


@pytest.fixture(scope="module")
def own() -> Iterator[PrivateEngine]:
    with private_engine() as engine:
        ensure_base(engine.socket)
        yield engine


@pytest.mark.parametrize("builder", ["buildkit", "classic"])
async def test_killed_in_mid_build(own: PrivateEngine, builder: str) -> None:
    """The step outlives its engine; the build that is lost takes it along."""
    word = nonce()
    sink = Recorder()
    settings = ProviderSettings(owner="tests", engine=own.socket)
    asked = request(f"RUN echo under way; (setsid sh -c 'sleep 1000; true' {word} &) ; sleep 1000", builder=builder)
    lost: list[BaseException] = []
    async with open_provider("docker", settings) as provider:
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:

                async def build() -> None:
                    try:
                        await provider.build(asked, sink)
                    except EngineLost as error:
                        lost.append(error)

                nursery.start_soon(build)
                await sink.until(b"under way")
                await trio.to_thread.run_sync(own.kill)
        assert len(lost) == 1
        assert processes_with(word) == []
        await trio.to_thread.run_sync(own.start)
        await provider.sweep([])
        assert await provider.remaining(asked.job_id) == []


async def test_a_sweep_ends_what_an_engine_left_that_was_killed(own: PrivateEngine) -> None:
    """As after a crash of engine and worker together: nobody was there to clean up."""
    word = nonce()
    sink = Recorder()
    settings = ProviderSettings(owner="tests", engine=own.socket)
    asked = request(f"RUN echo under way; (setsid sh -c 'sleep 1000; true' {word} &) ; sleep 1000")
    async with open_provider("docker", settings) as provider:
        traits_root = own.root
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_lost, provider, asked, sink)
                await sink.until(b"under way")
                mine = executions(traits_root)
                assert [each.orphan for each in mine] == [False]
                # The build's own proof must not run: its task is gone in the same moment.
                provider._prover = _Blind()
                await trio.to_thread.run_sync(own.kill)
    assert processes_with(word)
    assert [each.orphan for each in executions(traits_root)] == [True]
    await trio.to_thread.run_sync(own.start)
    async with open_provider("docker", settings) as fresh:
        removed = await fresh.sweep([])
        assert any("process" in each for each in removed)
        with trio.fail_after(40):
            while processes_with(word):
                await trio.sleep(0.02)


class _Blind:
    async def buildkit(self, *_: object) -> None:
        return


async def _until_lost(provider, asked, sink) -> None:
    with pytest.raises(EngineLost):
        await provider.build(asked, sink)
