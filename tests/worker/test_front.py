"""A front port over real sockets."""

import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from blacktree.rpc.replica import ReplicaName, ReplicaOrder
from blacktree.runspec import Port, RunSpec
from blacktree.worker import front as fronts
from blacktree.worker.front import Front, Place, Traffic
from blacktree.worker.fronts import Candidate, Fronts
from tests.parts.replicas import free_port

Handler = Callable[[trio.SocketStream], Awaitable[None]]


class House:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.traffic = Traffic()
        self.front = Front("127.0.0.1", free_port(), self.traffic)
        self.scope = trio.CancelScope()

    async def server(self, handler: Handler, key: str = "a") -> Place:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.nursery.start_soon(trio.serve_listeners, handler, [listener])
        return Place(key, "127.0.0.1", listener.socket.getsockname()[1])

    async def open(self) -> None:
        listeners = await self.front.open()

        async def serve() -> None:
            with self.scope:
                await self.front.serve(listeners, self.nursery)

        self.nursery.start_soon(serve)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.front.port)

    async def ask(self) -> bytes:
        """All that a server says to somebody who says nothing."""
        async with await self.connect() as stream:
            return await read(stream)


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            here = House(nursery)
            await here.open()
            yield here
            nursery.cancel_scope.cancel()


async def read(stream: trio.SocketStream) -> bytes:
    body = b""
    while data := await stream.receive_some():
        body += data
    return body


def says(word: bytes) -> Handler:
    async def handler(stream: trio.SocketStream) -> None:
        await stream.send_all(word)

    return handler


async def echo(stream: trio.SocketStream) -> None:
    body = await read(stream)
    await stream.send_all(body)


async def test_half_closed_connections_answer() -> None:
    async with house() as here:
        here.front.lead_to([await here.server(echo)])
        async with await here.connect() as stream:
            await stream.send_all(b"hello")
            await stream.send_eof()
            assert await read(stream) == b"hello"


async def test_a_large_answer_waits_for_a_slow_reader() -> None:
    sent = 0

    async def pour(stream: trio.SocketStream) -> None:
        nonlocal sent
        try:
            while True:
                await stream.send_all(bytes(65536))
                sent += 65536
        except trio.BrokenResourceError:
            pass

    async with house() as here:
        here.front.lead_to([await here.server(pour)])
        async with await here.connect() as stream:
            await stream.receive_some(1)
            before = -1
            while before != sent:
                before = sent
                await trio.sleep(0.2)
            # What the sockets on the way hold, and no more: nothing piles up here.
            assert sent < 64 << 20
        # The end of one side is the end of the other.
        await here.traffic.none("a")


async def test_new_connections_go_to_the_new_place_and_old_ones_stay() -> None:
    async with house() as here:
        old, new = await here.server(echo, "old"), await here.server(says(b"new"), "new")
        here.front.lead_to([old])
        async with await here.connect() as stream:
            await stream.send_all(b"hel")
            while not here.traffic.count("old"):
                await trio.sleep(0.01)
            here.front.lead_to([new])
            assert await here.ask() == b"new"
            assert here.traffic.count("old") == 1
            await stream.send_all(b"lo")
            await stream.send_eof()
            assert await read(stream) == b"hello"
        await here.traffic.none("old")


async def test_a_place_that_has_just_died_costs_nobody_anything() -> None:
    async with house() as here:
        # Nobody listens there, and nobody else can.
        with socket.socket() as kept:
            kept.bind(("127.0.0.1", 0))
            dead = Place("dead", *kept.getsockname())
            here.front.lead_to([dead, await here.server(says(b"alive"), "alive")])
            assert [await here.ask() for _ in range(6)] == [b"alive"] * 6
            assert here.traffic.count("dead") == 0


async def test_connections_wait_for_a_place() -> None:
    async with house() as here:
        answers = []

        async def ask() -> None:
            answers.append(await here.ask())

        async with trio.open_nursery() as asking:
            for _ in range(5):
                asking.start_soon(ask)
            await trio.sleep(0.05)
            assert answers == []
            here.front.lead_to([await here.server(says(b"late"))])
        assert answers == [b"late"] * 5


async def test_who_waits_too_long_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fronts, "WAIT_SECONDS", 0.1)
    async with house() as here:
        assert await here.ask() == b""
        monkeypatch.undo()
        here.front.lead_to([await here.server(says(b"well"))])
        assert await here.ask() == b"well"


async def test_the_load_is_spread() -> None:
    async with house() as here:
        places = [await here.server(says(bytes([65 + index])), str(index)) for index in range(3)]
        here.front.lead_to(places)
        answers = [await here.ask() for _ in range(30)]
        assert set(answers) == {b"A", b"B", b"C"}


async def test_too_many_connections_wait_in_the_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fronts, "MOST_CONNECTIONS", 2)
    async with house() as here:
        here.front.lead_to([await here.server(echo)])
        streams = [await here.connect() for _ in range(3)]
        while here.traffic.count("a") < 2:
            await trio.sleep(0.01)
        await streams[2].send_all(b"third")
        await streams[2].send_eof()
        with trio.move_on_after(0.1) as waiting:
            await streams[2].receive_some()
        assert waiting.cancelled_caught
        await streams[0].aclose()
        assert await read(streams[2]) == b"third"
        for stream in streams[1:]:
            await stream.aclose()


async def test_all_fronts_together_leave_descriptors_for_the_worker() -> None:
    async with house() as here, house() as there:
        there.traffic = there.front._traffic = here.traffic
        here.traffic._most = 2
        here.front.lead_to([await here.server(echo)])
        there.front.lead_to(here.front.places)
        with capture_logs() as logs:
            # Each port waits for a client by now, and takes one more.
            idle = [await each.connect() for each in (here, there) for _ in range(2)]
            while here.traffic.count("a") < 2:
                await trio.sleep(0.01)
            late = [await each.connect() for each in (here, there)]
            for stream in late:
                await stream.send_all(b"late")
                await stream.send_eof()
            with trio.move_on_after(0.1) as waiting:
                await late[0].receive_some()
            assert waiting.cancelled_caught
            assert here.traffic.count("a") <= 3
            for stream in idle:
                await stream.aclose()
            assert [await read(stream) for stream in late] == [b"late"] * 2
        assert [each["log_level"] for each in logs if "descriptors" in each["event"]] == ["warning"]
        for stream in late:
            await stream.aclose()


def test_the_share_of_the_descriptors() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == resource.RLIM_INFINITY or 2 * fronts.most_connections() <= soft // 2 or soft < 4


async def test_closed_it_takes_nothing_and_connections_live_on() -> None:
    async with house() as here:
        here.front.lead_to([await here.server(echo)])
        async with await here.connect() as stream:
            while not here.traffic.count("a"):
                await trio.sleep(0.01)
            here.scope.cancel()
            with pytest.raises(OSError):
                while True:
                    await (await here.connect()).aclose()
                    await trio.sleep(0.01)
            await stream.send_all(b"still")
            await stream.send_eof()
            assert await read(stream) == b"still"


async def test_who_waits_at_a_port_is_taken_along_when_it_is_closed_and_opened_again() -> None:
    order = ReplicaOrder(
        name=ReplicaName(deployment="shop", version=1, index=0),
        generation=1,
        image="a",
        run=RunSpec(name="shop", ports=[Port(container=80, host=free_port())]),
        serve=True,
    )
    async with house() as here:
        traffic = Traffic()
        kept = Fronts(traffic)
        await here.nursery.start(kept.run)
        place = await here.server(says(b"late"))
        kept.lead([Candidate(order, {})])
        stream = None
        while stream is None:
            with suppress(OSError):
                stream = await trio.open_tcp_stream("127.0.0.1", order.run.ports[0].host)
            await trio.sleep(0.01)
        async with stream:
            while not traffic.clients:
                await trio.sleep(0.01)
            kept.lead([])
            await trio.testing.wait_all_tasks_blocked()
            kept.lead([Candidate(order, {80: (place.host, place.port)})])
            assert await read(stream) == b"late"
