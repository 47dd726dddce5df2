"""`connect_worker`, `connect_orchestrator`: the other side, in Trio's flavour.

Deadlines are the caller's cancel scopes: leaving one resets the call on the wire. A lost connection is made anew by
the next call. One crossing to the island a call, and one write for what fits in one frame.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from google.protobuf.message import DecodeError, Message
from grpclib.client import Handler
from grpclib.config import Configuration
from grpclib.exceptions import ProtocolError, StreamTerminatedError
from grpclib.metadata import decode_grpc_message, decode_metadata
from grpclib.protocol import H2Protocol
from grpclib.utils import Wrapper
from h2.config import H2Configuration
from h2.exceptions import H2Error

from blacktree.concurrency.island import on_island
from blacktree.errors import BadRequest, BlacktreeError, Unavailable
from blacktree.rpc import address as addresses
from blacktree.rpc import status, wire
from blacktree.rpc.peer import OrchestratorSide, WorkerSide
from blacktree.rpc.proxy import OrchestratorProxy, WorkerProxy
from blacktree.rpc.tls import Tls, client_context

# What a connection raises when it, or the program behind it, is gone or does not speak gRPC.
TRANSPORT = (OSError, StreamTerminatedError, ProtocolError, H2Error, TimeoutError, KeyError, UnicodeError)
HANDSHAKE_SECONDS = 10.0


class _Protocol(wire.Guard, H2Protocol):
    """One connection."""

    heard = False
    on_lost: Callable[[], None] | None = None

    def data_received(self, data: bytes) -> None:
        self.heard = True
        super().data_received(data)

    def connection_lost(self, error: BaseException | None) -> None:
        super().connection_lost(error)
        if self.on_lost is not None:
            self.on_lost()


def configuration(keepalive_seconds: float) -> Configuration:
    """grpclib's settings for both sides: a frozen or unreachable peer is found within twice `keepalive_seconds`."""
    return Configuration(
        _keepalive_time=keepalive_seconds,
        _keepalive_timeout=keepalive_seconds,
        _keepalive_permit_without_calls=True,
        _http2_max_pings_without_data=0,
        _http2_min_sent_ping_interval_without_data=keepalive_seconds / 2,
        http2_stream_window_size=wire.STREAM_WINDOW_BYTES,
        http2_connection_window_size=wire.CONNECTION_WINDOW_BYTES,
    )


class Wire:
    """A connection that comes back by itself. All of it runs on the island, save `call`."""

    def __init__(self, target: str, join_token: str, tls: Tls | None, keepalive_seconds: float) -> None:
        self._address = addresses.parse(target)
        self._ssl: ssl.SSLContext | None = client_context(tls) if tls is not None and not self._address.path else None
        self._config = configuration(keepalive_seconds).__for_client__()
        self._h2_config = H2Configuration(
            client_side=True,
            header_encoding="ascii",
            validate_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_inbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._headers = [
            (":method", "POST"),
            (":scheme", "https" if self._ssl else "http"),
            (":authority", "localhost" if self._address.path else str(self._address)),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("authorization", f"Bearer {checked_token(join_token)}"),
        ]
        self._protocol: _Protocol | None = None
        self.on_lost: Callable[[], None] | None = None
        self._connecting = asyncio.Lock()

    async def call(self, path: str, request: Message, reply: type[Any]) -> Any:
        """One unary call, from Trio. Raises what the other side raised, or `PeerLost`."""
        try:
            body = wire.framed(request.SerializeToString())
            answer = await on_island(self._exchange, path, body)
            return reply.FromString(answer)
        except TRANSPORT as error:
            raise status.peer_lost(str(self._address), error, advice=self._advice()) from None
        except DecodeError:
            raise Unavailable(f"{self._address} sent what is no {reply.__name__}", code="malformed_reply") from None

    def _advice(self) -> str:
        """What is likely wrong with a side that takes the connection and closes it without a word."""
        # TLS 1.3: a server judges our certificate after our handshake is over; all we see is the end.
        if self._protocol is None or self._protocol.heard:
            return ""
        if self._ssl is None:
            return "it may want TLS: set the tls_* settings"
        return "it may not accept this side's certificate: see that its CA is the one that the other side was given"

    async def close(self) -> None:
        """From Trio; bounded."""
        with trio.move_on_after(wire.CLOSE_SECONDS, shield=True):
            await on_island(self._close)

    async def _close(self) -> None:
        if self._protocol is not None:
            self._protocol.processor.close()

    async def _connected(self) -> _Protocol:
        if not _usable(self._protocol):
            async with self._connecting:
                if not _usable(self._protocol):
                    self._protocol = await self._connect()
        if self._protocol is None or not _usable(self._protocol):
            raise ConnectionResetError("closed at once")
        return self._protocol

    async def _connect(self) -> _Protocol:
        loop = asyncio.get_running_loop()

        def protocol() -> _Protocol:
            made = _Protocol(loop, Handler(), self._config, self._h2_config)
            made.on_lost = self.on_lost
            return made

        if self._address.path:
            return (await loop.create_unix_connection(protocol, self._address.path))[1]
        _, connected = await loop.create_connection(
            protocol,
            self._address.host,
            self._address.port,
            ssl=self._ssl,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if self._ssl else None,
        )
        return connected

    async def _exchange(self, path: str, body: bytes) -> bytes:
        wrapper, stream = Wrapper(), None
        try:
            # A lost connection or a reset call cancels this task; leaving the wrapper turns that into an error.
            with wrapper:
                protocol = await self._connected()
                stream = protocol.connection.create_stream(wrapper=wrapper)
                release = await self._send(protocol, stream, path, body)
                try:
                    return await _answer(stream)
                finally:
                    _let_go(stream, release)
        except StreamTerminatedError:
            # The other side may answer before it has read everything, and reset the rest of the call.
            if stream is not None:
                raise_for_status(stream)
            raise

    async def _send(self, protocol: _Protocol, stream: Any, path: str, body: bytes) -> Any:
        headers = [(":path", path), *self._headers]
        h2 = protocol.connection._connection
        if (
            protocol.connection.write_ready.is_set()
            and h2.open_outbound_streams < h2.remote_settings.max_concurrent_streams
        ):
            stream_id = h2.get_next_available_stream_id()
            h2.send_headers(stream_id, headers)
            stream.init_stream(stream_id, protocol.connection)
            release = protocol.processor.register(stream)
            if wire.fits(stream, len(body)):
                h2.send_data(stream_id, body, end_stream=True)
                body = b""
            protocol.connection.flush()
        else:
            release = await stream.send_request(headers, _processor=protocol.processor)
        if body:
            try:
                await wire.send(stream, body, end=True)
            except BaseException:
                _let_go(stream, release)
                raise
        return release


def _usable(protocol: Any) -> bool:
    return protocol is not None and not protocol.handler.connection_lost and not protocol.connection.is_closing()


def _let_go(stream: Any, release: Any) -> None:
    if stream.closable:
        stream.reset_nowait()
    release()


async def _answer(stream: Any) -> bytes:
    headers = dict(await stream.recv_headers())
    if headers[":status"] != "200":
        raise ProtocolError(f"HTTP status {headers[':status'][:8]}")
    if "grpc-status" in headers:
        raise_for_status(stream)
        raise ProtocolError("an answer without a message")
    try:
        body = await wire.receive(stream)
    except BadRequest as error:
        # An error after the headers has no message; its status says why.
        if error.code != "too_large":
            await stream.recv_trailers()
            raise_for_status(stream)
        raise Unavailable(f"the answer cannot be read: {error.message}", code="malformed_reply") from None
    await stream.recv_trailers()
    raise_for_status(stream)
    return body


def raise_for_status(stream: Any) -> None:
    """Raises the error that the other side's status stands for, if it has sent one."""
    for headers in (stream.trailers, stream.headers):
        if headers is None:
            continue
        number = dict(headers).get("grpc-status")
        if number is None:
            continue
        if number == "0":
            return
        raise _error(headers, number)


def _error(headers: Any, number: str) -> BlacktreeError:
    try:
        message = decode_grpc_message(dict(headers).get("grpc-message", ""))
        details: Any = decode_metadata(headers).get(status.DETAILS_KEY)
        return status.from_status(int(number), message, details)
    except ValueError:  # no number, no base64, not ASCII
        return Unavailable("the other side's status cannot be read", code="malformed_reply")


def checked_token(join_token: str) -> str:
    """A token that can travel in a header. Raises `BadRequest` (code `invalid_config`); never shows it."""
    if not join_token or not join_token.isascii() or not join_token.isprintable() or " " in join_token:
        raise BadRequest(
            "the join token must be printable ASCII without blanks",
            code="invalid_config",
            advice="make one with: openssl rand -hex 32",
        )
    return join_token


@asynccontextmanager
async def connect_worker(
    address: str, *, join_token: str, tls: Tls | None = None, keepalive_seconds: float = wire.KEEPALIVE_SECONDS
) -> AsyncIterator[WorkerSide]:
    """The worker at `host:port` or `unix:/path`. Nothing is sent before the first call, nor is anything checked."""
    link = Wire(address, join_token, tls, keepalive_seconds)
    try:
        yield WorkerProxy(link)
    finally:
        await link.close()


@asynccontextmanager
async def connect_orchestrator(
    address: str,
    *,
    join_token: str,
    tls: Tls | None = None,
    keepalive_seconds: float = wire.KEEPALIVE_SECONDS,
    on_lost: Callable[[], None] | None = None,
) -> AsyncIterator[OrchestratorSide]:
    """The orchestrator, as `connect_worker`. `on_lost` is called, at once, whenever the connection ends."""
    link = Wire(address, join_token, tls, keepalive_seconds)
    link.on_lost = on_lost
    try:
        yield OrchestratorProxy(link)
    finally:
        await link.close()
