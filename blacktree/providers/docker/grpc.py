"""A gRPC server on one connection that is already open: HTTP/2 by h2, on Trio.

BuildKit turns the roles around: on the hijacked `POST /session` the engine is the client and asks us.
"""

import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio

MAX_MESSAGE_BYTES = 4 << 20  # gRPC's own default for what it receives
MAX_CALLS = 128
_QUEUE = 256

NOT_FOUND = 5
UNKNOWN = 2
UNIMPLEMENTED = 12


class CallFailed(Exception):
    """Ends a call with a gRPC status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class PeerGone(Exception):
    """The engine has closed the connection or this call."""


class Call:
    """One call: messages in, messages out."""

    def __init__(self, server: "CallServer", stream_id: int, headers: Mapping[str, list[str]]) -> None:
        self.headers = headers
        self._server = server
        self._id = stream_id
        self._buffer = bytearray()
        self._sender, self._receiver = trio.open_memory_channel[bytes](_QUEUE)
        self._whole = trio.Lock()
        self._started = False
        self._gone = False

    @property
    def method(self) -> str:
        """E.g. `/grpc.health.v1.Health/Check`."""
        return self.headers[":path"][0]

    async def receive(self) -> bytes | None:
        """The next message; None when the engine has no more. Raises `PeerGone`."""
        try:
            return await self._receiver.receive()
        except trio.EndOfChannel:
            if self._gone:
                raise PeerGone from None
            return None

    async def send(self, *messages: bytes) -> None:
        """Send whole messages: a lock keeps the frames of two of them apart. Raises `PeerGone`."""
        data = b"".join(b"\0" + struct.pack(">I", len(message)) + message for message in messages)
        async with self._whole:
            if not self._started:
                self._started = True
                await self._server.headers(self._id, [(":status", "200"), ("content-type", "application/grpc")])
            await self._server.data(self._id, data)

    async def end(self, code: int = 0, message: str = "") -> None:
        """Send the trailers."""
        fields = [("grpc-status", str(code))]
        if message:
            fields.append(("grpc-message", _percent(message)))
        if not self._started:
            self._started = True
            fields = [(":status", "200"), ("content-type", "application/grpc"), *fields]
        await self._server.headers(self._id, fields, end=True)

    async def feed(self, data: bytes) -> None:
        """Bytes from the engine. Raises `CallFailed` for a message that is too large."""
        self._buffer += data
        while len(self._buffer) >= 5:
            (size,) = struct.unpack(">I", self._buffer[1:5])
            if size > MAX_MESSAGE_BYTES:
                raise CallFailed(8, "message too large")
            if len(self._buffer) < 5 + size:
                return
            message = bytes(self._buffer[5 : 5 + size])
            del self._buffer[: 5 + size]
            try:
                await self._sender.send(message)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # answered already: what comes after is not wanted

    def finish(self, *, gone: bool) -> None:
        """Nothing more comes from the engine."""
        self._gone = self._gone or gone
        self._sender.close()

    def close(self) -> None:
        """We are done with it."""
        self._receiver.close()


def _percent(text: str) -> str:
    """gRPC's percent-encoding of a status message."""
    return "".join(chr(b) if 32 <= b < 127 and b != 37 else f"%{b:02X}" for b in text[:1000].encode("utf-8", "replace"))


class CallServer:
    """Serves every call on `stream` with `handle`, one task a call, until the engine hangs up."""

    def __init__(self, stream: trio.abc.Stream, handle: Callable[[Call], Awaitable[None]]) -> None:
        self._stream = stream
        self._handle = handle
        configuration = h2.config.H2Configuration(client_side=False, header_encoding=False)
        self._http: Any = h2.connection.H2Connection(configuration)
        self._http.local_settings.update({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: MAX_CALLS})
        self._sending = trio.Lock()
        self._room = trio.Event()
        self._wake = trio.Event()
        self._calls: dict[int, Call] = {}

    async def run(self, first: bytes, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve. `first` is what had already arrived. Returns when the connection ends."""
        self._http.initiate_connection()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._flush_later)
                await self._flush()
                task_status.started()
                data: bytes | bytearray = first
                while True:
                    if data:
                        for event in self._http.receive_data(data):
                            await self._on(event, nursery)
                        # Never send from here: an engine that waits for us to read must not be waited for.
                        self._wake.set()
                    data = await self._stream.receive_some(65536)
                    if not data:
                        break
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, h2.exceptions.ProtocolError, PeerGone):
            pass

    async def _on(self, event: Any, nursery: trio.Nursery) -> None:
        match event:
            case h2.events.RequestReceived():
                fields: dict[str, list[str]] = {}
                for name, value in event.headers:
                    fields.setdefault(name.decode("utf-8", "replace"), []).append(value.decode("utf-8", "replace"))
                call = self._calls[event.stream_id] = Call(self, event.stream_id, fields)
                nursery.start_soon(self._serve, event.stream_id, call)
            case h2.events.DataReceived():
                if found := self._calls.get(event.stream_id):
                    try:
                        await found.feed(event.data)
                    except CallFailed:
                        found.finish(gone=True)
                        self._http.reset_stream(event.stream_id, h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
                # A stream that has ended may be credited still: h2 then counts it for the connection alone.
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                if found := self._calls.get(event.stream_id):
                    found.finish(gone=False)
            case h2.events.StreamReset():
                if found := self._calls.get(event.stream_id):
                    found.finish(gone=True)
                self._room.set()
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._room.set()
            case h2.events.ConnectionTerminated():
                nursery.cancel_scope.cancel()
            case _:
                pass

    async def _serve(self, stream_id: int, call: Call) -> None:
        try:
            try:
                await self._handle(call)
                await call.end()
            except CallFailed as failed:
                await call.end(failed.code, failed.message)
        except PeerGone:
            pass
        finally:
            call.close()
            self._calls.pop(stream_id, None)

    async def headers(self, stream_id: int, fields: list[tuple[str, str]], *, end: bool = False) -> None:
        """Send headers or trailers. Raises `PeerGone`."""
        try:
            self._http.send_headers(stream_id, fields, end_stream=end)
        except h2.exceptions.ProtocolError as error:
            raise PeerGone from error
        await self._flush()

    async def data(self, stream_id: int, data: bytes) -> None:
        """Send data as the engine's windows allow. Raises `PeerGone`."""
        view = memoryview(data)
        while view:
            try:
                room = min(self._http.local_flow_control_window(stream_id), self._http.max_outbound_frame_size)
                if room <= 0:
                    self._room = trio.Event() if self._room.is_set() else self._room
                    await self._room.wait()
                    continue
                self._http.send_data(stream_id, bytes(view[:room]))
            except h2.exceptions.ProtocolError as error:
                raise PeerGone from error
            view = view[room:]
            await self._flush()

    async def _flush(self) -> None:
        async with self._sending:
            data = self._http.data_to_send()
            if data:
                try:
                    await self._stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    raise PeerGone from error

    async def _flush_later(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await self._flush()
