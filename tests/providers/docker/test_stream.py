"""The HTTP side against an engine that misbehaves: a real socket, and answers by hand."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest
import trio

from blacktree.errors import EngineLost, StepFailed
from blacktree.providers.docker import stream
from blacktree.providers.docker.address import Address
from blacktree.providers.docker.engine import Engine
from blacktree.providers.docker.stream import Connector, EngineRefused, parsed

Handler = Callable[[trio.SocketStream], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def serve(path: Path, nursery: trio.Nursery, handler: Handler) -> Connector:
    """An engine on a socket in `path` that answers every connection by `handler`."""
    where = str(path / "e.sock")
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    await listener.bind(where)
    listener.listen(5)
    nursery.start_soon(trio.serve_listeners, handler, [trio.SocketListener(listener)])
    return Connector(Address(path=where))


async def endless() -> AsyncGenerator[bytes, None]:
    while True:
        await trio.lowlevel.checkpoint()
        yield b"x" * 65536


async def test_an_early_answer_is_heard_while_the_body_is_sent(tmp_path: Path) -> None:
    async def handler(peer: trio.SocketStream) -> None:
        await peer.receive_some(1000)
        await peer.send_all(b'HTTP/1.1 400 Bad\r\nContent-Length: 17\r\n\r\n{"message":"bad"}')
        await trio.sleep_forever()

    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            connector = await serve(tmp_path, nursery, handler)
            body = endless()
            with pytest.raises(EngineRefused) as caught:
                async with connector.open("POST", "/x", body=body):
                    pass
            await body.aclose()
            assert (caught.value.status, caught.value.message) == (400, "bad")
            nursery.cancel_scope.cancel()


async def test_an_error_of_the_body_is_what_the_caller_gets(tmp_path: Path) -> None:
    async def handler(peer: trio.SocketStream) -> None:
        while await peer.receive_some(65536):
            pass

    async def breaking() -> AsyncGenerator[bytes, None]:
        yield b"x"
        raise StepFailed("the mirror is gone", code="mirror")

    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            connector = await serve(tmp_path, nursery, handler)
            with pytest.raises(StepFailed) as caught:
                async with connector.open("POST", "/x", body=breaking()):
                    pass
            assert caught.value.code == "mirror"
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"nonsense\r\n\r\n",
        HEAD + b"5\r\n{}",
        HEAD + chunk(b"{}\n") + b"zz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000,
    ],
)
async def test_an_engine_that_goes_away_or_raves_is_lost(tmp_path: Path, answer: bytes) -> None:
    async def handler(peer: trio.SocketStream) -> None:
        await peer.receive_some(1000)
        try:
            await peer.send_all(answer)
        except trio.BrokenResourceError:
            pass
        await peer.aclose()

    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            connector = await serve(tmp_path, nursery, handler)
            with pytest.raises(EngineLost):
                async with connector.open("GET", "/x") as found:
                    async for line in found.lines():
                        parsed(line)
            nursery.cancel_scope.cancel()


async def test_lines_are_put_together_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_LINE_BYTES", 1000)

    async def handler(peer: trio.SocketStream) -> None:
        await peer.receive_some(1000)
        await peer.send_all(HEAD + chunk(b'{"a"') + chunk(b': 1}\r\n\n{"b": 2}\n{"c"') + chunk(b":3}\n"))
        for _ in range(100):
            await peer.send_all(chunk(b"x" * 100))
        await trio.sleep_forever()

    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            connector = await serve(tmp_path, nursery, handler)
            found = []
            with pytest.raises(EngineLost, match="more than 1000 bytes"):
                async with connector.open("GET", "/x") as answer:
                    async for lines in answer.batches():
                        found += map(parsed, lines)
            assert found == [{"a": 1}, {"b": 2}, {"c": 3}]
            nursery.cancel_scope.cancel()


async def test_what_came_together_is_taken_together(tmp_path: Path) -> None:
    async def handler(peer: trio.SocketStream) -> None:
        await peer.receive_some(1000)
        await peer.send_all(HEAD + b"".join(chunk(b'{"a": %d}\r\n' % number) for number in range(50)) + b"0\r\n\r\n")
        await peer.aclose()

    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            connector = await serve(tmp_path, nursery, handler)
            async with connector.open("GET", "/x") as answer:
                found = [[parsed(line)["a"] for line in lines] async for lines in answer.batches()]
            assert found == [list(range(50))]
            nursery.cancel_scope.cancel()


async def test_what_came_before_nonsense_is_given_first(tmp_path: Path) -> None:
    async def handler(peer: trio.SocketStream) -> None:
        await peer.receive_some(1000)
        await peer.send_all(HEAD + chunk(b'{"a": 1}\n') + b"zz\r\n")
        await trio.sleep_forever()

    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            connector = await serve(tmp_path, nursery, handler)
            found: list[bytes] = []
            with pytest.raises(EngineLost):
                async with connector.open("GET", "/x") as answer:
                    async for lines in answer.batches():
                        found += lines
            assert found == [b'{"a": 1}']
            nursery.cancel_scope.cancel()


def test_half_a_surrogate_pair_is_read_as_it_is() -> None:
    assert parsed(b'{"stream": "\\ud800"}') == {"stream": "\ud800"}


async def test_a_cancel_closes_the_connection(tmp_path: Path) -> None:
    closed = trio.Event()

    async def handler(peer: trio.SocketStream) -> None:
        await peer.receive_some(1000)
        await peer.send_all(HEAD)
        while await peer.receive_some(1000):
            pass
        closed.set()

    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            connector = await serve(tmp_path, nursery, handler)
            with trio.CancelScope() as scope:
                async with connector.open("GET", "/x") as answer:
                    scope.cancel()
                    await answer.chunk()
            assert scope.cancelled_caught
            await closed.wait()
            nursery.cancel_scope.cancel()


async def test_podman_is_refused_with_the_reason_and_silence_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {
        b"/version": b'{"Version":"4.3.1","ApiVersion":"1.41","Components":[{"Name":"Podman Engine"}]}',
        b"/info": b'{"OSType":"linux"}',
    }
    silent = False

    async def handler(peer: trio.SocketStream) -> None:
        request = bytes(await peer.receive_some(1000))
        if not request or silent:
            await trio.sleep_forever()
        body = next(body for path, body in answers.items() if path in request)
        await peer.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            connector = await serve(tmp_path, nursery, handler)
            engine = Engine(connector)
            health = await engine.health()
            assert "Podman 4.3.1" in health.refusal
            silent = True
            monkeypatch.setattr("blacktree.providers.docker.engine.CHECK_SECONDS", 0.2)
            assert "silent" in (await engine.health()).refusal
            nursery.cancel_scope.cancel()


async def test_a_new_engine_is_spoken_to_in_a_version_it_knows(tmp_path: Path) -> None:
    asked: list[bytes] = []

    async def handler(peer: trio.SocketStream) -> None:
        request = bytes(await peer.receive_some(1000))
        if not request:
            return
        asked.append(request.split()[1])
        body = b'{"Version":"40.0","ApiVersion":"1.70","MinAPIVersion":"1.60","OSType":"linux"}'
        await peer.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            connector = await serve(tmp_path, nursery, handler)
            await Engine(connector).traits()
            assert asked == [b"/version", b"/v1.60/info"]
            nursery.cancel_scope.cancel()
