"""The scripted provider: held to the promise of a provider, and to its own script."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from blacktree.errors import EngineLost, StepFailed
from blacktree.providers import open_provider
from blacktree.providers.base import BuildRequest, Provider, ProviderSettings, Unproven
from tests.contracts.provider import Files, ProviderSuite, Recorder


def a_request(job_id: str, *script: dict[str, Any], text: str | None = None) -> BuildRequest:
    args = {"SCRIPT": json.dumps(script) if text is None else text} if script or text is not None else {}
    return BuildRequest(job_id=job_id, attempt=1, context=Files({}), build_args=args)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with open_provider("scripted", ProviderSettings(owner="test")) as opened:
        yield opened


class TestContract(ProviderSuite):
    capabilities = frozenset({"tags"})
    hangs = False

    def succeeding(self, job_id: str) -> BuildRequest:
        return a_request(job_id, {"step": "1", "name": "RUN echo hello", "lines": 1, "line": "hello"})

    def failing(self, job_id: str) -> BuildRequest:
        return a_request(job_id, {"step": "1", "name": "RUN exit 7"}, {"exit": 7})

    def endless(self, job_id: str) -> BuildRequest:
        return a_request(job_id, {"step": "1", "lines": 1, "line": "under way"}, {"seconds": 3600})

    def destination(self) -> AbstractContextManager[str]:
        return nullcontext("registry.example/blacktree-test/app")

    def stuck(self) -> AbstractContextManager[str]:
        self.hangs = True
        return nullcontext("registry.example/blacktree-test/app")

    def pushable(self, job_id: str) -> BuildRequest:
        return a_request(job_id, {"push": True, "seconds": 3600 if self.hangs else 0})


async def test_it_waits_for_files(provider: Provider, tmp_path: Path) -> None:
    go, let = tmp_path / "go", tmp_path / "let"
    sink, ended = Recorder(), trio.Event()
    script = ({"lines": 1}, {"until": str(go), "cancel_until": str(let)}, {"lines": 1}, {"seconds": 3600})

    async def build() -> None:
        try:
            await provider.build(a_request("a", *script), sink)
        finally:
            ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(build)
        with trio.fail_after(40):
            for file, lines in ((None, 1), (go, 2)):
                if file is not None:
                    file.touch()
                while sink.text.count(b"line") < lines:
                    await trio.sleep(0.01)
                assert not ended.is_set()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
                assert not ended.is_set()
                let.touch()
                await ended.wait()


async def test_no_script_succeeds_at_once_and_equal_requests_give_equal_images(provider: Provider) -> None:
    one = await provider.build(a_request("a"), Recorder())
    two = await provider.build(a_request("b"), Recorder())
    three = await provider.build(a_request("c", {"lines": 1}), Recorder())
    assert one == two != three


async def test_it_follows_the_script(provider: Provider) -> None:
    sink = Recorder()
    await provider.build(
        a_request(
            "a",
            {"step": "1", "name": "one", "lines": 2, "line": "{n} of 2"},
            {"bytes_base64": base64.b64encode(b"\xff\x00").decode(), "stream": "stderr"},
            {"progress": [1, 2], "notice": ["clipped", "some"]},
            {"step": "2", "cached": True},
        ),
        sink,
    )
    assert bytes(sink.data["1", "stdout"]) == b"1 of 2\n2 of 2\n"
    assert bytes(sink.data["1", "stderr"]) == b"\xff\x00"
    assert sink.moved == [("1", 1, 2, "steps")]
    assert sink.notices == [("clipped", "some", "1")]
    assert [cached for _, cached, _, _ in sink.finished.values()] == [False, True]


@pytest.mark.parametrize("text", ["{", "[1]", '[{"sekonds": 1}]', '[{"lines": "many"}]'])
async def test_a_script_that_is_none_fails_the_build(provider: Provider, text: str) -> None:
    with pytest.raises(StepFailed) as raised:
        await provider.build(a_request("a", text=text), Recorder())
    assert raised.value.code == "bad_script"


async def test_failures_of_choice(provider: Provider) -> None:
    with pytest.raises(StepFailed) as raised:
        await provider.build(a_request("a", {"error": {"message": "no", "code": "x", "again": True}}), Recorder())
    assert (raised.value.code, raised.value.again) == ("x", True)
    with pytest.raises(EngineLost):
        await provider.build(a_request("a", {"error": {"message": "no", "engine": True}}), Recorder())
    assert await provider.remaining("a") == []


UNDER_WAY = {"step": "1", "lines": 1, "line": "under way"}


async def canceled_under_way(provider: Provider, action: dict[str, Any]) -> None:
    """Build `a`, which does this and goes on, and is cancelled then."""

    class Canceling(Recorder):
        async def output(self, step: str, stream: str, data: bytes) -> None:
            await super().output(step, stream, data)
            scope.cancel()

    with trio.CancelScope() as scope:
        await provider.build(a_request("a", action, {"seconds": 600}), Canceling())


async def test_an_end_that_cannot_be_proven_stays_until_it_is_swept(provider: Provider) -> None:
    with pytest.raises(Unproven):
        await canceled_under_way(provider, {"unproven": True, **UNDER_WAY})
    assert await provider.remaining("a") != []
    assert await provider.sweep(["a"]) == []
    assert await provider.sweep([]) != []
    assert await provider.remaining("a") == []


async def test_a_slow_proof_holds_the_cancel(provider: Provider) -> None:
    began = trio.current_time()
    await canceled_under_way(provider, {"cancel_seconds": 0.2, **UNDER_WAY})
    assert trio.current_time() - began >= 0.2
