"""`serve_orchestrator`, `serve_worker`: Trio handlers behind an HTTP/2 server on the island.

Nothing that a client sends ends the daemon: a connection's errors stay with it, messages and connections are bounded,
a call without the join token is refused before its body is read, and whatever a handler raises becomes a status.
"""

import asyncio
import hmac
import inspect
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog
import trio
from google.protobuf.message import DecodeError, Message
from grpclib.const import Cardinality
from grpclib.const import Handler as Method
from grpclib.metadata import encode_grpc_message, encode_metadata
from grpclib.protocol import H2Protocol
from grpclib.server import Handler, Server, Stream
from h2.exceptions import H2Error

from blacktree.concurrency.island import on_island
from blacktree.errors import BadRequest, BlacktreeError, NotAllowed, Unavailable
from blacktree.rpc import address as addresses
from blacktree.rpc import status, wire
from blacktree.rpc.client import HANDSHAKE_SECONDS, checked_token, configuration
from blacktree.rpc.handlers import Call, orchestrator_calls, worker_calls
from blacktree.rpc.peer import OrchestratorSide, WorkerSide
from blacktree.rpc.tls import Tls, server_context

MAX_CONNECTIONS = 4096
# Who has not made one call with the right token by then is dropped, so that strangers cannot hold all connections.
STRANGER_SECONDS = 15.0
CLOSE_SECONDS = 2.0
ACCEPT_TURNS = 3

_REPLY = [(":status", "200"), ("content-type", "application/grpc+proto")]
_OK = [("grpc-status", "0")]

log = structlog.get_logger()


async def serve_orchestrator(
    side: OrchestratorSide,
    listen: str,
    *,
    join_token: str,
    tls: Tls | None = None,
    keepalive_seconds: float = wire.KEEPALIVE_SECONDS,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; `started()` hands back the real address: `host:port` or `unix:/path`.

    Raises `BadRequest` when it cannot listen there. When cancelled: accepts nothing more, tells the calls under way
    that it is ending, and is gone within about two seconds, whatever the clients do.
    """
    calls = orchestrator_calls(side)
    await _Service(calls, listen, join_token, tls, keepalive_seconds).run(task_status)


async def serve_worker(
    side: WorkerSide,
    listen: str,
    *,
    join_token: str,
    tls: Tls | None = None,
    keepalive_seconds: float = wire.KEEPALIVE_SECONDS,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """As `serve_orchestrator`."""
    calls = worker_calls(side)
    await _Service(calls, listen, join_token, tls, keepalive_seconds).run(task_status)


class _Protocol(wire.Guard, H2Protocol):
    """One client's connection."""

    service: "_Service"
    known = False
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        if self.service.ended:
            transport.abort()
        elif len(self.service.connections) >= MAX_CONNECTIONS:
            log.warning("connection refused", error=f"{MAX_CONNECTIONS} are open")
            transport.abort()
        super().connection_made(transport)
        self.service.connections.add(self)
        self.connection.guard = self
        self._late = self._loop.call_later(STRANGER_SECONDS, self._drop_stranger)

    def _drop_stranger(self) -> None:
        if not self.known:
            self._transport.abort()

    def connection_lost(self, error: BaseException | None) -> None:
        self.service.connections.discard(self)
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(error)

    def abort(self) -> None:
        self._transport.abort()


class _Handler(Handler):
    """grpclib's keeper of request tasks. A task cancelled before its first step never runs its `finally`, so a call
    that was reset at once would keep its share of the connection's window for ever."""

    def accept(self, stream: Any, headers: Any, release_stream: Callable[[], Any]) -> None:
        stream.release = release_stream
        super().accept(stream, headers, release_stream)

    def cancel(self, stream: Any) -> None:
        task = self._tasks.get(stream)
        if task is None:
            return
        coroutine: Any = task.get_coro()
        if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
            stream.release()
        super().cancel(stream)


class _Server(Server):
    """grpclib's server, with our protocol."""

    service: "_Service"

    def _protocol_factory(self) -> H2Protocol:
        self.__gc_step__()
        handler = _Handler(self._mapping, self._codec, self._status_details_codec, self.__dispatch__)
        self._handlers.add(handler)
        protocol = _Protocol(asyncio.get_running_loop(), handler, self._config, self._h2_config)
        protocol.service = self.service
        return protocol


class _Service:
    """One listening side: its calls, its connections, and the nursery that the handlers live in."""

    def __init__(
        self, calls: dict[str, Call], listen: str, join_token: str, tls: Tls | None, keepalive_seconds: float
    ) -> None:
        self._calls = calls
        self._address = addresses.parse(listen)
        self._ssl = server_context(tls) if tls is not None and not self._address.path else None
        self._expected = f"Bearer {checked_token(join_token)}".encode()
        self._config = configuration(keepalive_seconds)
        self.connections: set[_Protocol] = set()
        self.ended = False
        self._nursery: trio.Nursery | None = None
        self._servers: list[asyncio.Server] = []

    def __mapping__(self) -> dict[str, Method]:
        """What grpclib asks a service for."""
        return {
            path: Method(self._handler(*call), Cardinality.UNARY_UNARY, call[0], Message)
            for path, call in self._calls.items()
        }

    async def run(self, task_status: trio.TaskStatus[str]) -> None:
        sockets = addresses.bind(self._address)
        mine = addresses.identity(self._address)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    await on_island(self._listen, sockets, self._ssl)
                    task_status.started(addresses.actual(self._address, sockets))
                    await trio.sleep_forever()
                finally:
                    # The handlers end with the nursery, after this; each tells its caller why.
                    self._nursery = None
                    await self._bounded(self._stop_listening)
        finally:
            await self._bounded(self._hang_up)
            for sock in sockets:
                sock.close()
            addresses.release(self._address, mine)

    async def _bounded(self, function: Callable[[], Awaitable[None]]) -> None:
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await on_island(function)

    async def _listen(self, sockets: list[Any], context: ssl.SSLContext | None) -> None:
        self._server = _Server([self], config=self._config)
        self._server.service = self
        loop = asyncio.get_running_loop()
        for sock in sockets:
            self._servers.append(
                await loop.create_server(
                    self._server._protocol_factory,
                    sock=sock,
                    ssl=context,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS if context else None,
                )
                if not self._address.path
                else await loop.create_unix_server(self._server._protocol_factory, sock=sock)
            )

    async def _stop_listening(self) -> None:
        self.ended = True
        loop = asyncio.get_running_loop()
        for server in self._servers:
            for sock in server.sockets:
                loop.remove_reader(sock.fileno())
        # Whoever is being accepted becomes a connection meanwhile: a turn of Trio's loop, then some of asyncio's. Were
        # the server closed by then, asyncio would forget them, open as they are (CPython 3.11, `_accept_connection2`).
        await asyncio.sleep(0.001)
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)
        for server in self._servers:
            server.close()

    async def _hang_up(self) -> None:
        # `wait_closed` of 3.12 and later waits for idle clients too, for ever: it is not asked.
        for each in list(self.connections):
            each.processor.close("the server has ended")
        await asyncio.sleep(0)

    def _handler(self, request: type[Message], handle: Callable[[Any], Awaitable[Message]]) -> Any:
        async def method(stream: Stream[Any, Any]) -> None:
            raw = stream._stream
            try:
                self._authorize(stream)
                body = await wire.receive(raw)
                reply = await self._in_nursery(handle, request.FromString(body))
                payload = wire.framed(reply.SerializeToString())
            except DecodeError:
                error = BadRequest(f"this is no {request.__name__}", code="malformed")
                await self._refuse(stream, error)
            except H2Error:
                raise
            except Exception as error:  # the edge of one call
                await self._refuse(stream, error)
            else:
                await self._reply(stream, payload)

        return method

    def _authorize(self, stream: Any) -> None:
        given = stream.metadata.get("authorization", "")
        if not hmac.compare_digest(str(given).encode(), self._expected):
            raise NotAllowed(
                "wrong or missing join token",
                code="unauthenticated",
                advice="give both daemons the same join_token_file",
            )
        stream._stream.connection.guard.known = True

    async def _in_nursery(self, handle: Callable[[Any], Awaitable[Message]], request: Message) -> Message:
        """Run the Trio handler in our nursery and wait for it here, in asyncio; cancelled here, it is cancelled there.

        The same as `back_to_trio`, but the handler's life is that of this server and not of the whole island.
        """
        if self._nursery is None:
            raise _ending()
        done: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        scope = trio.CancelScope()
        self._nursery.start_soon(_run, handle, request, scope, done)
        try:
            return await done
        finally:
            scope.cancel()

    async def _reply(self, stream: Any, payload: bytes) -> None:
        raw = stream._stream
        if not raw.closable:
            return
        h2 = raw.connection._connection
        with suppress(H2Error):
            if wire.fits(raw, len(payload)):
                # Headers, message and trailers in one write: a third of the wake-ups on the other side.
                h2.send_headers(raw.id, _REPLY)
                h2.send_data(raw.id, payload)
                h2.send_headers(raw.id, _OK, end_stream=True)
                raw.connection.flush()
            else:
                await raw.send_headers(_REPLY)
                await wire.send(raw, payload, end=False)
                await raw.send_headers(_OK, end_stream=True)
        stream._send_trailing_metadata_done = True

    async def _refuse(self, stream: Any, error: Exception) -> None:
        number, message, details = status.to_status(error)
        headers = [
            *_REPLY,
            ("grpc-status", str(number)),
            ("grpc-message", encode_grpc_message(message)),
            *encode_metadata({status.DETAILS_KEY: details}),
        ]
        with suppress(H2Error):
            if stream._stream.closable:
                await stream._stream.send_headers(headers, end_stream=True)
                if stream._stream.closable:  # what it still sends is not read
                    stream._stream.reset_nowait()
        stream._send_trailing_metadata_done = True


def _ending() -> BlacktreeError:
    return Unavailable("this daemon is ending", code="ending", retry_after_seconds=1.0)


async def _run(
    handle: Callable[[Any], Awaitable[Message]],
    request: Message,
    scope: trio.CancelScope,
    done: "asyncio.Future[Message]",
) -> None:
    result: Message | None = None
    error: Exception = _ending()
    try:
        with scope:
            result = await handle(request)
    except Exception as raised:  # the edge of one call
        error = raised
    finally:
        if not done.done():
            if result is not None:
                done.set_result(result)
            else:
                done.set_exception(error)
