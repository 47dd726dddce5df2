"""The Engine's HTTP API on Trio: one connection a request, long answers that a cancel scope ends by closing it.

h11 over the socket instead of the docker SDK, for short calls too: cancellation needs no thread, there is one table
of errors, and the SDK's stack (some 20 MB of modules) is never loaded.
"""

import contextlib
import json
import socket
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import h11
import msgspec
import trio

from blacktree.errors import EngineLost
from blacktree.providers.docker.address import Address
from blacktree.providers.docker.scope import open_tasks

MAX_HEAD_BYTES = 64 * 1024
MAX_LINE_BYTES = 32 << 20  # one JSON message of a build; BuildKit's and the classic builder's stay far below
MAX_ANSWER_BYTES = 256 << 20
MAX_ERROR_BYTES = 64 * 1024
_CHUNK = 64 * 1024
_decode = msgspec.json.Decoder().decode

Params = Mapping[str, str | Sequence[str]]
Body = bytes | AsyncIterable[bytes]


class EngineRefused(Exception):
    """The engine answered with an HTTP error. Mapped by `faults.failure`, never seen outside this room."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Answer:
    """An answer whose body is still to be read."""

    def __init__(self, exchange: "_Exchange", head: h11.Response) -> None:
        self._exchange = exchange
        self.status: int = head.status_code
        self.headers = {name.decode().lower(): value.decode("latin-1") for name, value in head.headers}

    async def chunk(self) -> bytes:
        """The next of the body, all of it that is there; empty at its end. Raises `EngineLost` if it breaks off."""
        event = await self._exchange.event()
        if type(event) is h11.Data:
            # The engine sends a chunk a write: taken one by one they cost more than what is done with them.
            return b"".join((event.data, *self._exchange.waiting())) or await self.chunk()
        if type(event) is h11.EndOfMessage:
            return b""
        raise EngineLost(f"the engine's answer broke off ({type(event).__name__})")

    async def read(self, most: int = MAX_ANSWER_BYTES) -> bytes:
        """The whole body, at most `most` bytes of it."""
        parts: list[bytes] = []
        size = 0
        while size < most and (chunk := await self.chunk()):
            parts.append(chunk)
            size += len(chunk)
        return b"".join(parts)[:most]

    def lines(self) -> "Lines":
        """The body in lines, each one JSON message (see `parsed`); one longer than `MAX_LINE_BYTES` ends it."""
        return Lines(self)

    def batches(self) -> "Batches":
        """As `lines`, but as many at once as have come."""
        return Batches(self)


class Lines:
    """A body line by line. A class, not an async generator: leaving it halfway is the rule here."""

    def __init__(self, answer: Answer) -> None:
        self._batches = answer.batches()
        self._ready: deque[bytes] = deque()

    def __aiter__(self) -> "Lines":
        return self

    async def __anext__(self) -> bytes:
        if not self._ready:
            self._ready.extend(await anext(self._batches))
        return self._ready.popleft()


class Batches:
    """A body in lines, as many at once as have come: never none."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._rest = bytearray()
        self._ended = False

    def __aiter__(self) -> "Batches":
        return self

    async def __anext__(self) -> list[bytes]:
        while not self._ended:
            chunk = await self._answer.chunk()
            if not chunk:
                self._ended = True
                if self._rest.strip():
                    return [bytes(self._rest)]
            end = chunk.rfind(b"\n")
            if end >= 0:
                whole = bytes(self._rest) + chunk[:end]
                self._rest = bytearray(chunk[end + 1 :])
                if lines := [line for line in whole.split(b"\n") if line and not line.isspace()]:
                    return lines
            else:
                self._rest += chunk
            if len(self._rest) > MAX_LINE_BYTES:
                raise EngineLost(f"the engine sent a message of more than {MAX_LINE_BYTES} bytes", again=False)
        raise StopAsyncIteration


def parsed(line: bytes) -> dict[str, Any]:
    """A line of the engine's as a JSON object. Raises `EngineLost` for anything else."""
    try:
        value = _decode(line)
    except ValueError:
        # Stricter than JSON asks for, and quicker by far: half a surrogate pair is the standard library's to read.
        try:
            value = json.loads(line)
        except ValueError:
            raise EngineLost(f"the engine sent something that is no JSON: {line[:100]!r}") from None
    return value if isinstance(value, dict) else {}


class _Exchange:
    """One request and its answer on a connection of its own."""

    def __init__(self, stream: trio.abc.Stream, address: Address) -> None:
        self._stream = stream
        self._address = address
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._body_error: BaseException | None = None
        self._drawn: Any = None

    async def send(self, event: Any) -> None:
        data = self._connection.send(event)
        if data:
            await self._stream.send_all(data)

    async def send_body(self, body: Body | None) -> None:
        """Feed the request's body while the answer is read. What fails here is told by `event`."""
        try:
            if isinstance(body, bytes):
                for start in range(0, len(body), _CHUNK):
                    await self.send(h11.Data(data=body[start : start + _CHUNK]))
            elif body is not None:
                async for chunk in body:
                    if chunk:
                        await self.send(h11.Data(data=chunk))
            await self.send(h11.EndOfMessage())
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.LocalProtocolError):
            # The engine has answered early and taken no more: the answer says why.
            return
        except Exception as error:
            self._body_error = error
            await trio.aclose_forcefully(self._stream)

    async def event(self) -> Any:
        """The next event of the answer."""
        if self._drawn is not None:
            drawn, self._drawn = self._drawn, None
            return drawn
        while True:
            try:
                event = self._connection.next_event()
                if event is not h11.NEED_DATA:
                    if type(event) is h11.InformationalResponse:
                        continue
                    return event
                self._connection.receive_data(bytes(await self._stream.receive_some(_CHUNK)))
            except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as error:
                if self._body_error is not None:
                    raise self._body_error from None
                raise EngineLost(
                    f"the engine at {self._address} went away in the middle of an answer",
                    advice="see whether it still runs, then try again",
                ) from error

    def waiting(self) -> list[bytes]:
        """What has come of the body already, beyond the last event."""
        found: list[bytes] = []
        with contextlib.suppress(h11.RemoteProtocolError):  # it says so again to `event`
            while type(event := self._connection.next_event()) is h11.Data:
                found.append(event.data)
            self._drawn = None if event is h11.NEED_DATA else event
        return found


class Cord:
    """A hold on one request from outside of it: `shut` ends our half of its connection, so that the engine stops the
    request and can still say its last word."""

    def __init__(self) -> None:
        self._stream: trio.abc.Stream | None = None

    def hold(self, stream: trio.abc.Stream) -> None:
        """Called with the request's connection when there is one."""
        self._stream = stream

    def shut(self) -> bool:
        """End our half; False if there is no connection (yet)."""
        if not isinstance(self._stream, trio.SocketStream):
            return False
        # On the socket itself: the stream may be sending the request's body in another task.
        with contextlib.suppress(OSError):
            self._stream.socket.shutdown(socket.SHUT_WR)
        return True


class Connector:
    """Opens connections to one engine. `version` is the API version in each path once it is known, e.g. `1.41`."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.version = ""

    async def connect(self) -> trio.abc.Stream:
        """A fresh connection. Raises `EngineLost`."""
        try:
            if self.address.path:
                return await trio.open_unix_socket(self.address.path)
            return await trio.open_tcp_stream(self.address.host, self.address.port)
        except OSError as error:
            advice = "start it (systemctl start docker), or name its socket: worker.engine or DOCKER_HOST"
            if isinstance(error, PermissionError):
                advice = "let this user use it (group docker, then log in anew), or name another: worker.engine"
            raise EngineLost(
                f"no engine answers at {self.address}: {error.strerror or error}", code="engine_lost", advice=advice
            ) from None

    def target(self, path: str, params: Params | None = None) -> str:
        """The request's target: version, path and query."""
        prefix = f"/v{self.version}" if self.version else ""
        query = f"?{urlencode(params, doseq=True)}" if params else ""
        return f"{prefix}{path}{query}"

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        *,
        body: Body | None = None,
        headers: Iterable[tuple[str, str]] = (),
        cord: Cord | None = None,
    ) -> AsyncIterator[Answer]:
        """Ask, and answer with the open answer; leaving (or a cancellation) closes the connection.

        Raises `EngineLost`, and `EngineRefused` for a status of 400 and above.
        """
        stream = await self.connect()
        if cord is not None:
            cord.hold(stream)
        exchange = _Exchange(stream, self.address)
        fields = [("Host", "docker"), ("User-Agent", "blacktree"), ("Connection", "close"), *headers]
        if isinstance(body, bytes):
            fields.append(("Content-Length", str(len(body))))
        elif body is not None:
            fields.append(("Transfer-Encoding", "chunked"))
        elif method != "GET":
            fields.append(("Content-Length", "0"))
        request = h11.Request(method=method, target=self.target(path, params), headers=fields)
        try:
            async with open_tasks() as tasks:
                try:
                    await exchange.send(request)
                except trio.BrokenResourceError:
                    raise EngineLost(f"the engine at {self.address} hung up") from None
                tasks.start_soon(exchange.send_body, body)
                head = await exchange.event()
                if not isinstance(head, h11.Response):
                    raise EngineLost(f"the engine at {self.address} hung up without an answer")
                answer = Answer(exchange, head)
                if answer.status >= 400:
                    raise EngineRefused(answer.status, _message(await answer.read(MAX_ERROR_BYTES)))
                yield answer
                tasks.cancel_scope.cancel()
        finally:
            # Forcefully: a graceful end would wait for an engine that no longer reads.
            await trio.aclose_forcefully(stream)


def _message(body: bytes) -> str:
    try:
        value = json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace").strip()[:1000]
    return str(value.get("message", "")) if isinstance(value, dict) else str(value)
