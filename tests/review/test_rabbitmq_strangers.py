"""Whatever answers at the broker's address, a half-started RabbitMQ or none at all, ends no daemon."""

import os
import struct

import pytest
import trio

from blacktree.broker.rabbit import RabbitBroker
from blacktree.concurrency.island import open_island

_START = b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x0a"
ANSWERS = {
    "nothing": b"",
    "another version": b"AMQP\x00\x00\x09\x01",
    "half a frame": _START,
    "an empty frame": b"\x01\x00\x00\x00\x00\x00\x00\xce",
    "another frame": b"\x08\x00\x00\x00\x00\x00\x00\xce",
    "a wrong end": b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x0a\x00",
    "a start without its fields": b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x0a\xce",
    "an unknown method": b"\x01\x00\x00\x00\x00\x00\x04\x7f\xff\x7f\xff\xce",
    "a huge frame": b"\x01\x00\x00" + struct.pack(">I", 2**31 - 1) + b"x" * 100,
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "noise": os.urandom(4096),
}


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
async def test_a_stranger_at_the_address_is_ridden_out(answer: bytes, reset: bool) -> None:
    visits = 0
    came_again = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal visits
        visits += 1
        if visits >= 3:
            came_again.set()
        async with stream:
            try:
                if not reset:
                    await stream.receive_some(8)
                await stream.send_all(answer)
                await stream.send_eof()
            except (OSError, trio.BrokenResourceError):
                pass

    async with open_island(), trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        port = listeners[0].socket.getsockname()[1]
        url = f"amqp://guest:secret-of-guest@127.0.0.1:{port}/"
        broker = RabbitBroker(url, status_maximum=1, event_maximum=1, events=False, farm_id="f")
        await nursery.start(broker.run)
        with trio.fail_after(40):
            await came_again.wait()
        assert not broker.status().connected
        assert "secret-of-guest" not in broker.status().reason
        nursery.cancel_scope.cancel()
