"""What no honest peer does: garbage, floods, half-open connections, handlers that raise. The daemon goes on."""

import gc
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, ResponseReceived, StreamEnded, TrailersReceived
from h2.exceptions import ProtocolError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from blacktree.errors import BlacktreeError, Broken, PeerLost, Unavailable
from blacktree.rpc import server, wire
from blacktree.rpc.client import connect_worker
from blacktree.rpc.peer import MAX_MESSAGE_BYTES
from tests.rpc.house import TOKEN, House, house

PING = "/blacktree.v1.WorkerService/Ping"
REPORT = "/blacktree.v1.OrchestratorService/Report"


class Raw:
    """A client of our own on HTTP/2, that does what it likes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.h2 = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
        self.h2.initiate_connection()

    async def flush(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    def headers(self, path: str = PING, token: str = TOKEN, **more: str) -> int:
        number: int = self.h2.get_next_available_stream_id()
        found = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "x",
            "te": "trailers",
            "content-type": "application/grpc",
            "authorization": f"Bearer {token}",
        }
        self.h2.send_headers(number, list((found | more).items()))
        return number

    async def events(self) -> list[Event]:
        """Those of the next piece; none when the other side has hung up."""
        try:
            data = await self.stream.receive_some()
        except trio.BrokenResourceError:
            return []
        found: list[Event] = self.h2.receive_data(data) if data else []
        await self.flush()
        return found

    async def status(self, number: int) -> str:
        """The gRPC status of a call, or `closed`."""
        while True:
            found = await self.events()
            if not found:
                return "closed"
            for event in found:
                if isinstance(event, ResponseReceived | TrailersReceived) and event.stream_id == number:
                    for key, value in event.headers:
                        if bytes(key) == b"grpc-status":
                            return bytes(value).decode()

    async def closed(self) -> None:
        while await self.events():
            pass


@asynccontextmanager
async def raw(address: str) -> AsyncIterator[Raw]:
    host, _, port = address.rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        client = Raw(stream)
        await client.flush()
        yield client


async def still_serves(address: str) -> None:
    with trio.fail_after(40):
        async with connect_worker(address, join_token=TOKEN) as side:
            await side.ping()


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4), st.booleans())
async def test_garbage_ends_only_its_own_connection(pieces: list[bytes], preface: bool) -> None:
    async with house() as here:
        address = await here.serve_worker()
        host, _, port = address.rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            try:
                if preface:
                    await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
                for piece in pieces:
                    await stream.send_all(piece)
            except trio.BrokenResourceError:
                pass
        await still_serves(address)


async def test_frames_of_unknown_type_are_ignored() -> None:
    async with house() as here:
        address = await here.serve_worker()
        async with raw(address) as client:
            await client.stream.send_all(b"\x00\x00\x04\xfa\x00\x00\x00\x00\x00abcd")
            number = client.headers()
            client.h2.send_data(number, struct.pack(">BI", 0, 0), end_stream=True)
            await client.flush()
            assert await client.status(number) == "0"


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff",
        b"\x00" * 100,
    ],
)
async def test_other_protocols_are_hung_up_on(request_line: bytes) -> None:
    async with house() as here:
        address = await here.serve_worker()
        host, _, port = address.rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(request_line)
            with trio.fail_after(40):
                try:
                    while await stream.receive_some():
                        pass
                except trio.BrokenResourceError:
                    pass
        await still_serves(address)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (struct.pack(">BI", 0, MAX_MESSAGE_BYTES + 1), "8"),  # RESOURCE_EXHAUSTED, with nothing more sent
        (struct.pack(">BI", 0, 0xFFFFFFFF) + b"x" * 1000, "8"),
        (struct.pack(">BI", 1, 3) + b"abc", "3"),  # compressed
        (struct.pack(">BI", 0, 3) + b"\xff\xff\xff", "3"),  # no protobuf
        (struct.pack(">BI", 0, 10) + b"abc", "3"),  # ends early
        (b"\x00\x00", "3"),
        (b"", "3"),
    ],
)
async def test_a_bad_message_is_answered_and_the_connection_lives(body: bytes, status: str) -> None:
    async with house() as here, raw(await here.serve_orchestrator()) as client:
        number = client.headers(REPORT)
        # What announces more than it may is answered without waiting for the rest.
        client.h2.send_data(number, body, end_stream=status != "8")
        await client.flush()
        with trio.fail_after(40):
            assert await client.status(number) == status
        again = client.headers("/blacktree.v1.OrchestratorService/Nothing")
        client.h2.end_stream(again)
        await client.flush()
        assert await client.status(again) == "12"
    assert here.orchestrator.reports == []


async def test_the_token_is_checked_before_any_body_has_come() -> None:
    async with house() as here, raw(await here.serve_worker()) as client:
        number = client.headers(token="wrong")
        await client.flush()
        with trio.fail_after(40):
            assert await client.status(number) == "16"


@pytest.mark.parametrize(
    "more", [{":method": "GET"}, {"content-type": "text/plain"}, {"te": "no"}, {"x-bin": "%"}, {"grpc-timeout": "soon"}]
)
async def test_odd_headers_harm_nobody(more: dict[str, str]) -> None:
    async with house() as here:
        address = await here.serve_worker()
        async with raw(address) as client:
            client.headers(**more)
            await client.flush()
            await still_serves(address)


async def test_calls_reset_at_once_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers, body and reset in one packet: the handler's task is cancelled before its first step."""
    seen: list[wire.Guard] = []
    made = wire.Guard.connection_made

    def connection_made(self: wire.Guard, transport: object) -> None:
        made(self, transport)
        seen.append(self)

    monkeypatch.setattr(wire.Guard, "connection_made", connection_made)
    async with house() as here:
        async with raw(await here.serve_orchestrator()) as client:
            while client.h2.outbound_flow_control_window < 8 << 20:
                await client.events()
            for _ in range(300):
                number = client.headers(REPORT)
                client.h2.send_data(number, b"x" * 16_000)
                client.h2.reset_stream(number)
                await client.flush()
            number = client.headers("/blacktree.v1.OrchestratorService/Leave")
            client.h2.send_data(number, struct.pack(">BI", 0, 0), end_stream=True)
            await client.flush()
            assert await client.status(number) == "3"
            assert len(seen[0].processor.streams) <= 1


async def test_a_client_that_asks_and_never_reads_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_UNSENT_BYTES", 64 << 10)
    async with house() as here:
        address = await here.serve_worker()
        async with raw(address) as client:
            with trio.fail_after(90), pytest.raises(trio.BrokenResourceError):
                while True:
                    for _ in range(500):
                        client.h2.ping(b"12345678")
                    await client.flush()
        await still_serves(address)


async def test_strangers_are_dropped_and_do_not_hold_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    async with house() as here:
        address = await here.serve_worker()
        async with connect_worker(address, join_token=TOKEN) as friend:
            await friend.ping()
            # From now on: a friend may be slow to say who he is.
            monkeypatch.setattr(server, "STRANGER_SECONDS", 0.3)
            async with raw(address) as first, raw(address) as second:
                await trio.testing.wait_all_tasks_blocked()
                async with raw(address) as third:
                    with trio.fail_after(40):
                        await third.closed()  # over the limit
                        await first.closed()  # too late
                        await second.closed()
            monkeypatch.undo()
            await friend.ping()
        await still_serves(address)


async def test_a_silent_connection_is_found_by_the_keepalive() -> None:
    async with house() as here:
        address = await here.serve_worker(keepalive=0.3)
        host, _, port = address.rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            with trio.fail_after(40):
                try:
                    while await stream.receive_some():
                        pass
                except trio.BrokenResourceError:
                    pass


@pytest.mark.parametrize("fault", [Broken("s3cret"), RuntimeError("s3cret"), ExceptionGroup("s3cret", [ValueError()])])
async def test_a_handler_that_raises_is_masked_and_loud(fault: Exception) -> None:
    async with house() as here:
        address = await here.serve_worker()
        async with connect_worker(address, join_token=TOKEN) as side:
            here.worker.fault = fault
            with capture_logs() as logs, pytest.raises(Unavailable) as caught:
                await side.ping()
            assert caught.value.code == "internal"
            assert "s3cret" not in str(caught.value)
            assert [log["exc_info"] for log in logs if log["log_level"] == "error"] == [fault]
            here.worker.fault = None
            await side.ping()


Script = Callable[[H2Connection, int], None]


def _huge(h2: H2Connection, number: int) -> None:
    h2.send_headers(number, [(":status", "200"), ("content-type", "application/grpc")])
    h2.send_data(number, struct.pack(">BI", 0, 0xFFFFFFF0))


def _html(h2: H2Connection, number: int) -> None:
    h2.send_headers(number, [(":status", "502"), ("content-type", "text/html")], end_stream=True)


def _no_protobuf(h2: H2Connection, number: int) -> None:
    h2.send_headers(number, [(":status", "200"), ("content-type", "application/grpc")])
    h2.send_data(number, struct.pack(">BI", 0, 3) + b"\xff\xff\xff")
    h2.send_headers(number, [("grpc-status", "0")], end_stream=True)


def _bad_status(h2: H2Connection, number: int) -> None:
    h2.send_headers(number, [(":status", "200"), ("grpc-status", "x"), ("blacktree-error-bin", "%%")], end_stream=True)


def _empty(h2: H2Connection, number: int) -> None:
    h2.send_headers(number, [(":status", "200"), ("grpc-status", "0")], end_stream=True)


def _go_away(h2: H2Connection, number: int) -> None:
    h2.close_connection()


def _reset(h2: H2Connection, number: int) -> None:
    h2.reset_stream(number)


def _missing_fields(h2: H2Connection, number: int) -> None:
    h2.send_headers(number, [(":status", "200"), ("content-type", "application/grpc")])
    h2.send_data(number, struct.pack(">BI", 0, 0))
    h2.send_headers(number, [("grpc-status", "0")], end_stream=True)


async def _false_server(here: House, script: Script) -> str:
    """A server that answers every call by `script`."""

    async def serve(stream: trio.SocketStream) -> None:
        h2 = H2Connection(H2Configuration(client_side=False, validate_outbound_headers=False))
        h2.initiate_connection()
        try:
            await stream.send_all(h2.data_to_send())
            while data := await stream.receive_some():
                for event in h2.receive_data(data):
                    if isinstance(event, StreamEnded):
                        script(h2, event.stream_id or 0)
                    assert isinstance(event, Event | DataReceived | RequestReceived)
                await stream.send_all(h2.data_to_send())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except ProtocolError:
            # After the good-bye: what the client had under way by then.
            assert script is _go_away

    listeners = await here.nursery.start(trio.serve_tcp, serve, 0)
    port: int = listeners[0].socket.getsockname()[1]
    return f"localhost:{port}"


@pytest.mark.parametrize("script", [_huge, _html, _no_protobuf, _bad_status, _empty, _go_away, _reset, _missing_fields])
async def test_a_false_server_is_an_error_of_ours_within_time(script: Script) -> None:
    async with house() as here:
        address = await _false_server(here, script)
        async with connect_worker(address, join_token=TOKEN) as side:
            for _ in range(2):
                with trio.fail_after(40), pytest.raises(BlacktreeError):
                    await side.ping()


async def test_a_server_that_sends_garbage_is_peer_lost() -> None:
    async with house() as here:

        async def serve(stream: trio.SocketStream) -> None:
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await trio.sleep_forever()

        listeners = await here.nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        async with connect_worker(f"localhost:{port}", join_token=TOKEN) as side:
            with trio.fail_after(40), pytest.raises(PeerLost):
                await side.ping()


@pytest.mark.parametrize("turns", range(8))
async def test_who_comes_in_the_last_moment_is_hung_up_on(tmp_path: Path, turns: int) -> None:
    """Whatever the server had begun to do for them when it ended: no connection is forgotten."""
    gc.disable()
    try:
        async with house() as here:
            address = await here.serve_worker(f"unix:{tmp_path}/s")
            with ExitStack() as stack:
                clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(20)]
                for each in clients:
                    each.connect(address.removeprefix("unix:"))
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                await here.stop()
                for each in clients:
                    each.settimeout(40)
                    with suppress(ConnectionResetError):
                        while await trio.to_thread.run_sync(each.recv, 65536):
                            pass
    finally:
        gc.enable()
