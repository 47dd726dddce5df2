"""Speaking to a door byte by byte: raw HTTP, and JSON-RPC over a websocket."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h11
import trio
import trio_websocket
from wsproto.utilities import LocalProtocolError

from tests.api.little import TOKEN, House

BEARER = {"Authorization": f"Bearer {TOKEN}"}


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


def request_head(method: str, path: str, *lines: str) -> bytes:
    """The bytes of a request's head, with the token."""
    head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {TOKEN}", *lines]
    return "".join(f"{line}\r\n" for line in head).encode() + b"\r\n"


async def until(done: Callable[[], bool], seconds: float = 40) -> None:
    """Look again and again, for so long at most."""
    with trio.fail_after(seconds):
        while not done():
            await trio.sleep(0.01)


class Answer:
    """An HTTP answer, whole."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Visitor:
    """One HTTP connection, kept alive."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.CLIENT)

    async def ask(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        head = {"Host": "127.0.0.1", **(headers or {})}
        if body is not None and "Transfer-Encoding" not in head:
            head["Content-Length"] = str(len(body))
        data = self.http.send(h11.Request(method=method, target=path, headers=_encoded(head))) or b""
        if body:
            data += self.http.send(h11.Data(data=body)) or b""
        data += self.http.send(h11.EndOfMessage()) or b""
        await self.stream.send_all(data)
        answer = await self.answer()
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
        return answer

    async def answer(self) -> Answer:
        response: h11.Response | None = None
        body = bytearray()
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                self.http.receive_data(await self.stream.receive_some(65536))
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                assert response is not None
                headers = {name.decode(): value.decode() for name, value in response.headers}
                return Answer(response.status_code, headers, bytes(body))


async def connect(house: House) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", house.port)


async def ask(
    house: House,
    method: str,
    path: str,
    *,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    token: bool = True,
) -> Answer:
    """One request on a connection of its own."""
    async with await connect(house) as stream:
        merged = {**(BEARER if token else {}), **(headers or {})}
        return await Visitor(stream).ask(method, path, headers=merged, body=body)


async def raw(house: House, data: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes; everything that comes back until the door closes."""
    async with await connect(house) as stream:
        await stream.send_all(data)
        if half_close:
            await stream.send_eof()
        found = b""
        try:
            async for piece in stream:
                found += piece
        except trio.BrokenResourceError:
            pass
        return found


class Talker:
    """A websocket and its JSON."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection) -> None:
        self.websocket = websocket
        self.count = 0

    async def say(self, message: Any) -> None:
        await self.websocket.send_message(message if isinstance(message, str | bytes) else json.dumps(message))

    async def hear(self) -> Any:
        return json.loads(await self.websocket.get_message())

    async def call(self, method: str, params: Any = None) -> Any:
        self.count += 1
        await self.say({"jsonrpc": "2.0", "id": self.count, "method": method, "params": params or {}})
        answer = await self.hear()
        assert answer.get("id") == self.count, answer
        return answer

    async def result(self, method: str, params: Any = None) -> Any:
        answer = await self.call(method, params)
        assert "result" in answer, answer
        return answer["result"]

    async def error(self, method: str, params: Any = None) -> Any:
        answer = await self.call(method, params)
        assert "error" in answer, answer
        return answer["error"]


@asynccontextmanager
async def talking(
    house: House, headers: dict[str, str] | None = None, *, path: str = "/ws", queue: int = 1
) -> AsyncIterator[Talker]:
    """A websocket to the door, with the token."""
    # The stream is ours: the library leaves the socket of a refused handshake open.
    async with await connect(house) as stream:
        try:
            async with trio.open_nursery() as nursery:
                websocket = await trio_websocket.wrap_client_stream(
                    nursery,
                    stream,
                    house.address,
                    path,
                    extra_headers=_encoded(BEARER if headers is None else headers),
                    max_message_size=16 << 20,
                    message_queue_size=queue,
                )
                yield Talker(websocket)
                with trio.move_on_after(2):
                    await websocket.aclose()
                nursery.cancel_scope.cancel()
        except* LocalProtocolError:
            # A ping that came when the library had said goodbye: it wants to answer and may not.
            pass
