"""HTTP/1.1 on a wire: h11 reads bounded heads and bodies, an ASGI application answers.

h11 directly, not Hypercorn: its Trio server shields sends from cancellation without a deadline, speaks HTTP/2 (h2c,
prior knowledge) on this port beyond our limits, sees an upgrade on a kept-alive connection as ASGI, and answers
refusals without a body. What is needed of it is this file.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import nullcontext
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

import h11
import structlog
import trio

from blacktree.api.budget import Budget
from blacktree.api.faults import problem, unexpected
from blacktree.api.idle import Idle
from blacktree.api.wire import Wire
from blacktree.config import DoorConfig
from blacktree.errors import BadRequest, BlacktreeError, TooLarge

MAXIMUM_HEAD_BYTES = 32 * 1024
IDLE_SECONDS = 60.0
HALF_CLOSED_SECONDS = 10.0
SLOW_LINGER_SECONDS = 1.0  # whoever was refused for being slow
LINGER_SECONDS = 10.0  # a client behind a thin line sends for long before it listens
_LINGER_BYTES = 32 << 20  # what GitHub may send is 25 MB: its refusal must arrive
WEBHOOKS_PATH = "/api/v1/webhooks/"
LOGIN_PATH = "/login"

Message = MutableMapping[str, Any]
Application = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

log = structlog.get_logger()


class Gone(OSError):
    """The client left in the middle; Starlette knows an OSError from `send` as that."""


class Conversation:
    """Request after request on one wire, until either side has enough."""

    def __init__(self, wire: Wire, app: Application, config: DoorConfig, budget: Budget, idle: Idle) -> None:
        self._wire = wire
        self._app = app
        self._idle = idle
        self._config = config
        self._budget = budget
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAXIMUM_HEAD_BYTES)

    async def next_request(self, *, first: bool) -> h11.Request | None:
        """The next head, or None when the connection is over. Refuses what is no HTTP, too long or too slow."""
        with self._idle.waiting():
            return await self._next_request(first=first)
        return None

    async def _next_request(self, *, first: bool) -> h11.Request | None:
        seconds = self._config.head_seconds if first else IDLE_SECONDS
        with trio.move_on_after(seconds) as scope:
            while True:
                try:
                    event = self._http.next_event()
                except h11.RemoteProtocolError as error:
                    await self._refuse_head(error.error_status_hint)
                    return None
                if isinstance(event, h11.Request):
                    if _has_two_lengths(event):
                        await self._refuse_head(400)
                        return None
                    return event
                if event is not h11.NEED_DATA:
                    return None
                waiting = not self._http.trailing_data[0]
                data = await self._receive()
                if data and waiting and not first:
                    # The idle time is over with the first byte; from here on it is a head that must arrive.
                    scope.deadline = trio.current_time() + self._config.head_seconds
                self._http.receive_data(data)
        if self._http.trailing_data[0]:
            await self._refuse_head(408)
        return None

    async def _receive(self) -> bytes:
        try:
            return await self._wire.receive_some(65536)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def _refuse_head(self, status: int) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        error: BlacktreeError = BadRequest("the request cannot be read", code="malformed")
        if status == 431:
            error = TooLarge(f"the request's head has more than {MAXIMUM_HEAD_BYTES} bytes")
        if status == 408:
            error = BadRequest(f"the request's head took more than {self._config.head_seconds} s", code="too_slow")
        await self.refuse(error, status=status)

    async def refuse(self, error: BlacktreeError, *, status: int | None = None) -> None:
        """Answer with a problem, then close in a way that lets the answer arrive."""
        usual, headers, body = problem(error)
        response = h11.Response(
            status_code=status or usual,
            headers=[*headers.items(), ("content-length", str(len(body))), ("connection", "close")],
        )
        try:
            data = self._http.send(response) or b""
            data += self._http.send(h11.Data(data=body)) or b""
            data += self._http.send(h11.EndOfMessage()) or b""
            await self._wire.send_all(data)
        except (h11.LocalProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            return
        with self._idle.waiting():
            await self._wire.linger(SLOW_LINGER_SECONDS if status == 408 else LINGER_SECONDS, _LINGER_BYTES)

    def replay(self, key: str) -> None:
        """Put the head of an upgrade back on the wire, for another protocol to read: what was looked at, no more."""
        head = "GET /ws HTTP/1.1\r\nHost: door\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        head += f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        self._wire.put_back(head.encode() + self._http.trailing_data[0])

    async def answer(self, request: h11.Request) -> bool:
        """Let the application answer; True if the connection can be used again."""
        exchange = _Exchange(self._wire, self._http, request, self._config, self._budget, self._idle)
        try:
            await exchange.run(self._app)
        except Gone:
            return False
        if not exchange.started:
            await self.refuse(unexpected())
            return False
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return True
        if self._http.our_state in (h11.DONE, h11.MUST_CLOSE):
            with self._idle.waiting():
                await self._wire.linger(LINGER_SECONDS, _LINGER_BYTES)
        return False


def _has_two_lengths(request: h11.Request) -> bool:
    """Whether a proxy in front may have read another body than we would (RFC 9112, section 6.1): a smuggled request."""
    names = {name for name, _ in request.headers}
    return b"content-length" in names and b"transfer-encoding" in names


class _Exchange:
    """One request and its answer, as ASGI sees them."""

    def __init__(
        self, wire: Wire, http: h11.Connection, request: h11.Request, config: DoorConfig, budget: Budget, idle: Idle
    ) -> None:
        # Whoever sends a webhook is known by its signature only, and that is over the whole body.
        # By the path as the gate reads it: `%77ebhooks` gets past there, too.
        self._path = unquote(request.target.partition(b"?")[0].decode("ascii", "replace"), errors="replace")
        webhook = self._path.startswith(WEBHOOKS_PATH)
        self._most = config.maximum_webhook_bytes if webhook else config.maximum_body_bytes
        self._share = None
        if webhook or self._path == LOGIN_PATH:
            headers: dict[str, str] = {}
            for name, value in request.headers:
                text, before = value.decode("latin-1"), headers.get(name.decode("latin-1"))
                headers[name.decode("latin-1")] = text if before is None else f"{before}, {text}"
            self._share = budget.share(headers, wire.peer)
        self._wire = wire
        self._http = http
        self._request = request
        self._config = config
        # Whoever sends anything else was let in before its body is read.
        self._waiting = nullcontext if self._share is None else idle.waiting
        self._received = 0
        self._body_done = trio.Event()
        self._body_told = False
        self._gone = trio.Event()
        self._bodiless = request.method == b"HEAD"
        self.started = False

    async def run(self, app: Application) -> None:
        raw_path, _, query = self._request.target.partition(b"?")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": self._request.http_version.decode("ascii"),
            "method": self._request.method.decode("ascii"),
            "scheme": "https" if self._wire.secure else "http",
            "path": self._path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": list(self._request.headers),
            "client": (self._wire.peer, 0),
            "server": ("", self._wire.port),
            "state": {},
        }
        self._end_empty_body()
        try:
            await self._serve(app, scope)
        finally:
            if self._share is not None:
                self._share.give_back()

    async def _serve(self, app: Application, scope: dict[str, Any]) -> None:
        lost = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            try:
                await app(scope, self._receive, self._send)
            except Gone:
                lost = True
            except Exception:
                # Starlette makes its own exception of a `Gone`.
                if not self._gone.is_set():
                    log.exception("request_failed", method=scope["method"], path=scope["path"][:200])
                # A half-sent answer cannot be mended: it must not look whole.
                lost = self.started
            nursery.cancel_scope.cancel()
        if lost or self._gone.is_set():
            raise Gone("the client left")

    def _end_empty_body(self) -> None:
        lengths = {name: value for name, value in self._request.headers if name.endswith((b"-length", b"-encoding"))}
        if b"transfer-encoding" not in lengths and lengths.get(b"content-length", b"0") == b"0":
            self._http.next_event()
            self._body_done.set()

    async def _receive(self) -> Message:
        if self._body_told:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        if self._http.they_are_waiting_for_100_continue:
            await self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
        body = bytearray()
        try:
            with self._waiting(), trio.move_on_after(self._config.body_seconds) as scope:
                if self._share is not None:
                    self._share.scope = scope
                while not self._body_done.is_set():
                    body += await self._body_piece()
            if self._share is not None:
                self._share.check()
        except BlacktreeError:
            # The answer may take long to be taken, and this must not lie here so long.
            body.clear()
            raise
        finally:
            if self._share is not None:
                self._share.scope = None
        if scope.cancelled_caught:
            body.clear()
            raise BadRequest(f"the request's body took more than {self._config.body_seconds} s", code="too_slow")
        if not self._body_done.is_set():
            self._gone.set()
            raise Gone("it has made way for another")
        self._body_told = True
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    async def _body_piece(self) -> bytes:
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError:
            if not self._http.trailing_data[1]:
                raise BadRequest("the request's body cannot be read", code="malformed") from None
            self._gone.set()
            raise Gone("the client left in the middle of its request") from None
        if event is h11.NEED_DATA:
            try:
                self._http.receive_data(await self._wire.receive_some(65536))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._gone.set()
                raise Gone("the client left") from None
        elif isinstance(event, h11.Data):
            self._received += len(event.data)
            if self._received > self._most:
                raise TooLarge(
                    f"the request's body has more than {self._most} bytes",
                    advice="put what is large into the repository",
                )
            if self._share is not None:
                self._share.take(len(event.data))
            return bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            self._body_done.set()
        return b""

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            # RFC 9110, section 6.6.1: an origin server with a clock says what it shows.
            headers = [*message.get("headers", ()), (b"date", formatdate(usegmt=True).encode())]
            if self._http.their_state is h11.SEND_BODY:
                headers.append((b"connection", b"close"))
            status = message["status"]
            self._bodiless = self._bodiless or status in (204, 304)
            await self._write(self._http.send(h11.Response(status_code=status, headers=headers)))
            return
        body = message.get("body", b"")
        data = b"" if self._bodiless or not body else self._http.send(h11.Data(data=body)) or b""
        if not message.get("more_body", False):
            data += self._http.send(h11.EndOfMessage()) or b""
        await self._write(data)

    async def _write(self, data: bytes | None) -> None:
        try:
            if data:
                await self._wire.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._gone.set()
            raise Gone("the client left") from None

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Notice a client that leaves while its answer is being made.

        An end of file alone may be a half-closed connection that still waits, so it only shortens the waiting.
        """
        await self._body_done.wait()
        try:
            data = await self._wire.receive_some(65536)
            if data:
                # The next request comes early: kept for its turn, and read no further before.
                self._http.receive_data(data)
                return
            self._http.receive_data(b"")
            await trio.sleep(HALF_CLOSED_SECONDS)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        if not self.started:
            self._gone.set()
            scope.cancel()
