"""The conversation over real sockets, and what becomes of it when either side goes away."""

import signal
import subprocess
from pathlib import Path

import pytest
import sniffio
import trio

from blacktree.errors import BadRequest, NotAllowed, PeerLost, TooLarge, Unavailable
from blacktree.event import Lines
from blacktree.rpc.client import connect_orchestrator, connect_worker
from blacktree.rpc.peer import AttemptReport, Batch, Report
from tests.contracts.peer import (
    NOON,
    StandInOrchestrator,
    a_name,
    a_status,
    an_assignment,
    orchestrator_suite,
    worker_suite,
)
from tests.parts.rabbit import free_port
from tests.rpc.child import ROOT, open_child
from tests.rpc.house import TOKEN, house


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0", "localhost:0", "unix"])
async def test_the_promise_is_kept(listen: str, tmp_path: Path) -> None:
    async with house() as here:
        for part in ("w", "o"):
            where = f"unix:{tmp_path}/{part}" if listen == "unix" else listen
            if part == "w":
                async with connect_worker(await here.serve_worker(where), join_token=TOKEN) as worker:
                    await worker_suite(worker, here.worker)
            else:
                address = await here.serve_orchestrator(where)
                async with connect_orchestrator(address, join_token=TOKEN) as orchestrator:
                    await orchestrator_suite(orchestrator, here.orchestrator)


async def test_many_calls_at_once_share_one_connection() -> None:
    async with house() as here:
        async with connect_worker(await here.serve_worker(), join_token=TOKEN) as side:
            async with trio.open_nursery() as nursery:
                for _ in range(300):  # more than HTTP/2 streams are allowed at once
                    nursery.start_soon(side.ping)


def a_large_report(size: int) -> Report:
    text = ("x" * 1000 + "\n") * (size // 1001)
    batch = Batch(number=1, records=[Lines(NOON, 1, "s", "stdout", text)])
    return Report(
        worker_id="w1",
        incarnation="i1",
        status=a_status(),
        attempts=[AttemptReport(name=a_name(), batches=[batch])],
    )


async def test_a_large_report_crosses_and_a_larger_one_is_refused() -> None:
    async with house() as here:
        async with connect_orchestrator(await here.serve_orchestrator(), join_token=TOKEN) as side:
            report = a_large_report(4_000_000)
            await side.report(report)
            assert here.orchestrator.reports == [report]
            with pytest.raises(TooLarge):
                await side.report(a_large_report(5_000_000))
            await side.leave("w1", "i1")


async def test_more_assignments_than_a_message_holds_are_handed_over() -> None:
    async with house() as here:
        async with connect_worker(await here.serve_worker(), join_token=TOKEN) as side:
            answers = await side.run_jobs([an_assignment(number) for number in range(1, 6001)])
    assert [answer.accepted for answer in answers] == [True, False] * 3000
    assert [each.name.attempt for each in here.worker.assignments] == list(range(1, 6001))


@pytest.mark.parametrize("token", ["wrong", TOKEN + "x", TOKEN[:-1]])
async def test_a_wrong_token_is_refused_before_the_side_is_asked(token: str) -> None:
    async with house() as here:
        async with connect_worker(await here.serve_worker(), join_token=token) as side:
            with pytest.raises(NotAllowed) as caught:
                await side.run_jobs([an_assignment()])
        assert caught.value.code == "unauthenticated"
        assert "join_token_file" in caught.value.advice
        assert here.worker.assignments == []


async def test_a_wrong_token_with_a_large_body_is_refused_all_the_same() -> None:
    async with house() as here:
        async with connect_orchestrator(await here.serve_orchestrator(), join_token="wrong") as side:
            with pytest.raises(NotAllowed):
                await side.report(a_large_report(4_000_000))


@pytest.mark.parametrize("token", ["", "two words", "ü", "a\nb"])
async def test_a_token_that_cannot_travel_is_a_matter_of_configuration(token: str) -> None:
    async with house():
        with pytest.raises(BadRequest) as caught:
            async with connect_worker("127.0.0.1:1", join_token=token):
                pass
        assert caught.value.code == "invalid_config"
        assert not token or token not in str(caught.value)


async def test_the_wrong_kind_of_daemon_is_named() -> None:
    async with house() as here:
        async with connect_worker(await here.serve_orchestrator(), join_token=TOKEN) as side:
            with pytest.raises(NotAllowed) as caught:
                await side.ping()
        assert caught.value.code == "not_blacktree"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "unix:/nowhere/s", "no-such-host.invalid:1", "a..b:1"])
async def test_nobody_there_is_peer_lost(address: str) -> None:
    async with house(), connect_worker(address, join_token=TOKEN) as side:
        with pytest.raises(PeerLost):
            await side.ping()


@pytest.mark.parametrize("listen", ["tcp", "unix"])
async def test_a_peer_killed_in_mid_call_is_lost_at_once_and_found_again(listen: str, tmp_path: Path) -> None:
    # Not a port that the system gives to clients: it is taken a second time.
    listen = f"unix:{tmp_path}/s" if listen == "unix" else f"127.0.0.1:{free_port()}"
    async with house():
        async with open_child(listen, "shut") as child:
            address = await child.line()
            async with connect_worker(address, join_token="t") as side:

                async def kill() -> None:
                    assert await child.line() == "called"
                    child.process.kill()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(kill)
                    with pytest.raises(PeerLost):
                        await side.ping()
                with trio.fail_after(40), pytest.raises(PeerLost):
                    await side.ping()
                # The same address again; over a unix socket the killed one left its file behind.
                async with open_child(address) as again:
                    assert await again.line() == address
                    assert (await side.ping()).worker_id == "w1"


async def test_a_frozen_peer_meets_the_callers_deadline_and_then_the_keepalive() -> None:
    async with house(), open_child("127.0.0.1:0") as child:
        async with connect_worker(await child.line(), join_token="t", keepalive_seconds=3) as side:
            await side.ping()
            child.process.send_signal(signal.SIGSTOP)
            with trio.move_on_after(0.2) as scope:
                await side.ping()
            assert scope.cancelled_caught
            with trio.fail_after(40), pytest.raises(PeerLost):
                await side.ping()
            child.process.send_signal(signal.SIGCONT)
            assert (await side.ping()).worker_id == "w1"


async def test_a_frozen_peer_is_found_also_while_a_large_message_is_on_its_way() -> None:
    async with house(), open_child("127.0.0.1:0") as child:
        async with connect_worker(await child.line(), join_token="t", keepalive_seconds=3) as side:
            await side.ping()
            child.process.send_signal(signal.SIGSTOP)
            with trio.fail_after(40), pytest.raises(PeerLost):
                await side.run_jobs([an_assignment(number) for number in range(1, 4000)])


async def test_a_caller_that_leaves_cancels_the_handler() -> None:
    async with house() as here:
        async with connect_worker(await here.serve_worker(), join_token=TOKEN) as side:
            here.worker.gate = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(side.ping)
                await here.worker.entered.wait()
                nursery.cancel_scope.cancel()
            await here.worker.left.wait()
            here.worker.gate.set()
            assert (await side.ping()).worker_id == "w1"


async def test_cancelling_at_any_moment_leaves_a_connection_that_works() -> None:
    """Every few scheduler steps of a call, from both an open and a new connection."""
    async with house() as here:
        address = await here.serve_worker()
        for steps in range(0, 60, 2):
            async with connect_worker(address, join_token=TOKEN) as side:
                if steps % 4:
                    await side.ping()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(side.ping)
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
                assert (await side.ping()).worker_id == "w1"


async def test_a_server_that_ends_tells_the_calls_under_way_and_is_gone_in_time() -> None:
    async with house() as here:
        address = await here.serve_worker(f"127.0.0.1:{free_port()}")
        async with connect_worker(address, join_token=TOKEN) as side:
            here.worker.gate = trio.Event()

            async def call() -> None:
                with pytest.raises(Unavailable) as caught:
                    await side.ping()
                assert caught.value.code in ("ending", "peer_lost")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                await here.worker.entered.wait()
                with trio.fail_after(40):
                    await here.stop()
            assert here.worker.left.is_set()
            with pytest.raises(PeerLost):
                await side.ping()
            here.worker.gate.set()
            assert await here.serve_worker(address) == address
            assert (await side.ping()).worker_id == "w1"


async def test_a_server_ends_in_time_while_clients_idle_and_its_socket_file_goes(tmp_path: Path) -> None:
    async with house() as here:
        address = await here.serve_worker(f"unix:{tmp_path}/s")
        async with connect_worker(address, join_token=TOKEN) as side:
            await side.ping()
            async with await trio.open_unix_socket(str(tmp_path / "s")):
                with trio.fail_after(40):
                    await here.stop()
        assert not (tmp_path / "s").exists()


def test_the_generated_code_is_up_to_date() -> None:
    subprocess.run(["bin/protos", "--check"], cwd=ROOT, check=True, timeout=60)


async def test_a_handler_may_use_threads_and_call_the_other_way() -> None:
    """It runs in Trio proper, with the island at hand, although the call came in over asyncio."""
    async with house() as here:
        worker = await here.serve_worker()
        seen: list[object] = []

        class Caller(StandInOrchestrator):
            async def leave(self, worker_id: str, incarnation: str) -> None:
                seen.append(await trio.to_thread.run_sync(lambda: "thread"))
                async with connect_worker(worker, join_token=TOKEN) as side:
                    seen.append((await side.ping()).worker_id)
                with trio.move_on_after(0.05) as scope:
                    await trio.sleep_forever()
                seen.append(scope.cancelled_caught)
                seen.append(sniffio.current_async_library())

        here.orchestrator = Caller()
        async with connect_orchestrator(await here.serve_orchestrator(), join_token=TOKEN) as side:
            await side.leave("w1", "i1")
    assert seen == ["thread", "w1", True, "trio"]
