"""What the server and the client share of HTTP/2: the guard of a connection, whole messages, one write a message.

grpclib's `H2Protocol` raises from `data_received` for what it does not know, has no limit on messages, and closes a
connection only after its buffer has left. Here nothing leaves the connection's edge, and everything is bounded.
"""

import struct
from typing import Any

import structlog
from h2.events import InformationalResponseReceived, UnknownFrameReceived
from hyperframe.frame import Frame

from blacktree.errors import BadRequest, TooLarge
from blacktree.rpc.peer import MAX_MESSAGE_BYTES

KEEPALIVE_SECONDS = 10.0
STREAM_WINDOW_BYTES = 256 << 10  # one stalled stream must not take the whole connection's window
CONNECTION_WINDOW_BYTES = 16 << 20
MAX_UNSENT_BYTES = 16 << 20
MAX_OPEN_STREAMS = 1000  # h2 allows 100 at once; more than this are leftovers of streams reset before they began
CLOSE_SECONDS = 1.0

log = structlog.get_logger()

# h2 4.4 spells out every frame it gets, content and all, for a log that is switched off: 50 us for 16 KiB.
# (mypy forbids assigning a method; replacing this one is the point.)
Frame.__repr__ = object.__repr__  # type: ignore[method-assign]  # on purpose


def _ignore(event: Any) -> None:
    pass


class Guard:
    """Goes before `H2Protocol` in a class: bounds a connection and keeps its errors to itself.

    Its `super()` is that class, which grpclib does not type: hence the ignored types below.
    """

    connection: Any
    processor: Any
    _transport: Any

    def __init__(self, loop: Any, handler: Any, config: Any, h2_config: Any) -> None:
        super().__init__(handler, config, h2_config)  # type: ignore[call-arg]  # grpclib's
        self._loop = loop

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)  # type: ignore[misc]  # grpclib's
        self._transport = transport
        connection = self.connection
        # RFC 9113, section 4.1: frames of unknown type must be ignored.
        self.processor.processors[UnknownFrameReceived] = _ignore
        self.processor.processors[InformationalResponseReceived] = _ignore
        plain_close = connection.close

        def close() -> None:
            # A transport closes only once its buffer has left, or TLS has said goodbye: a frozen peer never lets it.
            if not transport.is_closing():
                self._loop.call_later(CLOSE_SECONDS, transport.abort)
            plain_close()

        connection.close = close

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        try:
            super().data_received(data)  # type: ignore[misc]  # grpclib's
        except Exception as error:  # the edge of one connection: nothing it sends may end the daemon
            log.info("connection dropped", error=repr(error)[:200])
            self._transport.abort()
            return
        if self._too_much():
            log.info("connection dropped", error="it sends or asks for more than is allowed")
            self._transport.abort()

    def _too_much(self) -> bool:
        # h2 looks at a frame's length only when the whole frame, up to 16 MiB, is there.
        h2 = self.connection._connection
        waiting = h2.incoming_buffer._data
        return (
            (len(waiting) >= 3 and int.from_bytes(waiting[:3], "big") > h2.max_inbound_frame_size)
            or self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES
            or len(self.processor.streams) > MAX_OPEN_STREAMS
        )


def framed(body: bytes) -> bytes:
    """A gRPC message: not compressed, length, body (gRPC over HTTP/2, `Length-Prefixed-Message`)."""
    if len(body) > MAX_MESSAGE_BYTES:
        raise TooLarge(f"a message of {len(body)} bytes, the limit is {MAX_MESSAGE_BYTES}")
    return struct.pack(">?I", False, len(body)) + body


async def receive(stream: Any) -> bytes:
    """The one message of a unary call. Refuses a large one before anything is allocated for it."""
    try:
        head = await stream.recv_data(5)
        if len(head) != 5:
            raise BadRequest("the call brought no message", code="malformed")
        compressed, size = struct.unpack(">BI", head)
        if compressed:
            raise BadRequest("compressed messages are not understood", code="malformed")
        if size > MAX_MESSAGE_BYTES:
            raise TooLarge(f"a message of {size} bytes, the limit is {MAX_MESSAGE_BYTES}")
        body: bytes = await stream.recv_data(size)
    except AssertionError:  # grpclib's buffer, when the stream ends early
        raise BadRequest("the message ended early", code="malformed") from None
    if len(body) != size:
        raise BadRequest("the message ended early", code="malformed")
    return body


def fits(stream: Any, size: int) -> bool:
    """Whether `size` bytes can leave at once in one frame."""
    h2 = stream.connection._connection
    room = min(h2.local_flow_control_window(stream.id), h2.max_outbound_frame_size)
    return bool(size <= room and stream.connection.write_ready.is_set())


async def send(stream: Any, body: bytes, *, end: bool) -> None:
    """Send a message, as much at a time as the windows allow: grpclib's own way makes a system call of each frame."""
    h2 = stream.connection._connection
    at = 0
    while at < len(body):
        await stream.connection.write_ready.wait()
        window = h2.local_flow_control_window(stream.id)
        if window <= 0:
            stream.window_updated.clear()
            await stream.window_updated.wait()
            continue
        until = min(len(body), at + window)
        while at < until:
            piece = body[at : min(until, at + h2.max_outbound_frame_size)]
            at += len(piece)
            h2.send_data(stream.id, piece, end_stream=end and at == len(body))
        stream.connection.flush()
