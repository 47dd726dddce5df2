"""One websocket to a server: opened with the token in a header, bounded, and given up when the server falls silent."""

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio
import trio_websocket

from blacktree.errors import BadRequest, BlacktreeError, Conflict, NotAllowed, NotFound, TooLarge, Unavailable
from blacktree.spec import MAX_SPEC_BYTES

DEFAULT_SERVER = "http://127.0.0.1:8080"
MAXIMUM_MESSAGE_BYTES = 64 << 20
CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 60.0
PONG_SECONDS = 15.0

_SCHEMES = ("http", "ws", "https", "wss")
_ERRORS: dict[int, type[BlacktreeError]] = {
    -32001: NotFound,
    -32002: Conflict,
    -32003: NotAllowed,
    -32005: TooLarge,
    -32700: BadRequest,
    -32600: BadRequest,
    -32601: BadRequest,
    -32602: BadRequest,
}


_NO_ANSWER = (trio_websocket.ConnectionClosed, OSError, trio.BrokenResourceError, trio.TooSlowError)


class Lost(Exception):
    """The connection is gone, or was never made; what was asked may have happened or not."""


class Incoming(msgspec.Struct, frozen=True):
    """Anything the server sends."""

    id: int | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: dict[str, Any] | None = None
    method: str = ""
    params: msgspec.Raw = msgspec.Raw()


# What OpenSSL makes of an answer in plain text.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")
_TOKEN_ADVICE = "give it with --token or BLACKTREE_TOKEN; it is in the farm's STATE/token"
_decode = msgspec.json.Decoder(Incoming).decode


class Endpoint:
    """Where a server is and how to get in. The token is in no URL, log or repr."""

    def __init__(self, server: str, token: str, *, ssl_context: ssl.SSLContext | None = None) -> None:
        """`server`: `HOST:PORT` or an http, https, ws or wss URL. Raises `BadRequest`."""
        self.server = server or DEFAULT_SERVER
        parts = urlsplit(self.server if "://" in self.server else f"http://{self.server}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in _SCHEMES or not parts.hostname or port == -1 or "@" in parts.netloc or parts.query:
            raise BadRequest(
                f"{self.server!r} is no server address", path="server", advice="write http://HOST:PORT", code="invalid"
            )
        self._secure = parts.scheme in ("https", "wss")
        self._host = parts.hostname
        self._port = port or (443 if self._secure else 80)
        self._authority = parts.netloc
        self._path = parts.path.rstrip("/") + "/ws"
        # As it is read from its file: with a newline at its end.
        self._token = token.strip()
        if not self._token.isprintable():
            raise BadRequest(
                "the token holds a line break or the like", path="token", advice=_TOKEN_ADVICE, code="invalid"
            )
        self._ssl_context = ssl_context

    def __repr__(self) -> str:
        return f"Endpoint({self.server!r})"

    async def open(self, nursery: trio.Nursery) -> "Link":
        """Connect. Raises `Lost` if nobody answers, `NotAllowed` for a wrong token."""
        link = Link()
        try:
            await nursery.start(self._hold, link)
        except Exception as error:
            first = _first(error)
            if isinstance(first, trio_websocket.ConnectionRejected):
                raise _rejection(self.server, first, given=bool(self._token)) from None
            if isinstance(first, Unavailable):
                raise first from None
            if isinstance(first, _NO_ANSWER):
                raise Lost(f"{self.server} does not answer{_why(first)}") from None
            raise
        return link

    async def _hold(self, link: "Link", *, task_status: trio.TaskStatus[None]) -> None:
        try:
            stream = await self._connect()
            try:
                async with trio.open_nursery() as nursery:
                    with trio.fail_after(CONNECT_SECONDS):
                        link.websocket = await self._greet(nursery, stream)
                    task_status.started()
                    link.open = True
                    await link.done.wait()
                    with trio.move_on_after(1):
                        await link.websocket.aclose()
                    nursery.cancel_scope.cancel()
            finally:
                # The library leaves the socket of a refused handshake open.
                await trio.aclose_forcefully(stream)
        except Exception:
            # Once it has been used, how it ends is nobody's error: whoever waits sees that it is closed.
            if not link.open:
                raise
            link.drop()

    async def _connect(self) -> trio.abc.Stream:
        with trio.fail_after(CONNECT_SECONDS):
            stream = await trio.open_tcp_stream(self._host, self._port)
        if not self._secure:
            return stream
        context = self._ssl_context or ssl.create_default_context()
        secure = trio.SSLStream(stream, context, server_hostname=self._host, https_compatible=True)
        try:
            with trio.fail_after(CONNECT_SECONDS):
                await secure.do_handshake()
        except BaseException as error:
            await trio.aclose_forcefully(stream)
            if isinstance(cause := error.__cause__, ssl.SSLCertVerificationError):
                raise Unavailable(
                    f"the certificate of {self.server} is not trusted here: {cause.verify_message}",
                    code="server_certificate",
                    advice="name the authority's certificate in SSL_CERT_FILE",
                    again=False,
                ) from None
            if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
                raise Unavailable(
                    f"{self.server} does not speak TLS",
                    code="server_address",
                    advice=f"write http://{self._authority}",
                    again=False,
                ) from None
            raise
        return secure

    async def _greet(self, nursery: trio.Nursery, stream: trio.abc.Stream) -> trio_websocket.WebSocketConnection:
        heard = _Heard(stream)
        with trio.CancelScope() as scope:
            nursery.start_soon(heard.cancel_at_end, scope)
            return await trio_websocket.wrap_client_stream(
                nursery,
                heard,  # type: ignore[arg-type]  # any stream will do
                self._authority,
                self._path,
                extra_headers=[(b"Authorization", f"Bearer {self._token}".encode())] if self._token else [],
                message_queue_size=4,
                max_message_size=MAXIMUM_MESSAGE_BYTES,
                receive_buffer_size=65536,
            )
        raise trio.BrokenResourceError("the server hung up")


class _Heard(trio.abc.Stream):
    """A stream that tells its end: the library would wait for a handshake on a connection that is gone."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._ended = trio.Event()

    async def cancel_at_end(self, scope: trio.CancelScope) -> None:
        await self._ended.wait()
        scope.cancel()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except BaseException:
            self._ended.set()
            raise
        if not data:
            self._ended.set()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class Link:
    """An open connection. Used by one task at a time."""

    def __init__(self) -> None:
        self.websocket: trio_websocket.WebSocketConnection
        self.done = trio.Event()
        self.open = False
        self._next_id = 0

    @property
    def usable(self) -> bool:
        """Whether nobody has closed it yet, as far as we know."""
        return not self.done.is_set() and self.websocket.closed is None

    def drop(self) -> None:
        """Close it, without waiting."""
        self.done.set()

    async def send(self, method: str, params: Mapping[str, Any]) -> int:
        """Send a request; answers its id. Raises `Lost`, and `TooLarge` for what no server takes."""
        self._next_id += 1
        request = msgspec.json.encode({"jsonrpc": "2.0", "id": self._next_id, "method": method, "params": params})
        if len(request) > MAX_SPEC_BYTES:
            raise TooLarge(f"the request has {len(request)} bytes, the limit is {MAX_SPEC_BYTES}")
        try:
            with trio.fail_after(SILENCE_SECONDS):
                await self.websocket.send_message(request.decode())
        except (trio_websocket.ConnectionClosed, trio.TooSlowError) as error:
            self.drop()
            raise _ended(error) from None
        return self._next_id

    async def receive(self) -> Incoming:
        """The next message. Raises `Lost` when the connection ends or the server answers no ping."""
        try:
            while True:
                with trio.move_on_after(SILENCE_SECONDS):
                    return _decode(await self.websocket.get_message())
                with trio.fail_after(PONG_SECONDS):
                    await self.websocket.ping()
        except (trio_websocket.ConnectionClosed, trio.TooSlowError) as error:
            self.drop()
            raise _ended(error) from None
        except msgspec.MsgspecError as error:
            self.drop()
            raise Unavailable(f"the server's answer makes no sense: {error}", code="bad_answer") from None

    async def ask(self, method: str, params: Mapping[str, Any]) -> msgspec.Raw:
        """Send a request and wait for its result. Raises the error that the server names, or `Lost`."""
        identity = await self.send(method, params)
        while True:
            message = await self.receive()
            if message.error is not None and message.id in (identity, None):
                raise told(message.error)
            if message.id == identity:
                return message.result


def told(error: Mapping[str, Any]) -> BlacktreeError:
    """The exception that a JSON-RPC error stands for."""
    message = str(error.get("message", "refused"))
    found = error.get("data")
    data: Mapping[str, Any] = found if isinstance(found, dict) else {}
    code, advice = str(data.get("code", "")), str(data.get("advice", ""))
    kind = _ERRORS.get(error.get("code", 0))
    if kind is not None and issubclass(kind, BadRequest):
        return kind(message, path=str(data.get("path", "")), code=code, advice=advice)
    if kind is not None:
        return kind(message, code=code, advice=advice)
    after = data.get("retry_after", 5.0)
    after = float(after) if isinstance(after, int | float) else 5.0
    again = error.get("code") == -32004
    return Unavailable(message, code=code, advice=advice, again=again, retry_after_seconds=after)


def _rejection(server: str, rejected: trio_websocket.ConnectionRejected, *, given: bool) -> BlacktreeError:
    try:
        problem = msgspec.json.decode(rejected.body or b"{}", type=dict[str, Any])
    except msgspec.MsgspecError:
        problem = {}
    message = str(problem.get("detail", f"{server} answered {rejected.status_code}"))
    code, advice = str(problem.get("code", "")), str(problem.get("advice", ""))
    if rejected.status_code == 401:
        what = "does not know this token" if given else "wants a token, and none was given"
        return NotAllowed(f"{server} {what}", code="unauthorized", advice=_TOKEN_ADVICE)
    if rejected.status_code == 403:
        return NotAllowed(message, code=code, advice=advice)
    if rejected.status_code in (503, 429):
        return Unavailable(message, code=code or "server_busy", advice=advice)
    return Unavailable(
        f"{server} is no Blacktree server (it answered {rejected.status_code})",
        code="server_unreachable",
        advice="is that a farm's address, and http or https as it speaks?",
        again=False,
    )


def _ended(error: BaseException) -> Exception:
    reason = error.reason if isinstance(error, trio_websocket.ConnectionClosed) else None
    if reason is not None and reason.code == 1009:
        return TooLarge("the request is larger than the server takes", advice="see `maximum_frame_bytes`")
    if isinstance(error, trio.TooSlowError):
        return Lost("the server fell silent")
    return Lost("the connection was lost")


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _why(error: BaseException) -> str:
    if isinstance(error, OSError):
        # Trio groups the attempts at several addresses under one OSError.
        cause = error.__cause__
        if isinstance(cause, BaseExceptionGroup):
            error = _first(cause)
        return f": {getattr(error, 'strerror', None) or error}"
    return ": no answer in time" if isinstance(error, trio.TooSlowError) else ""
