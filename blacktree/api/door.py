"""One port for pages, HTTP and websockets: reads each connection's head, then hands it on. It owns every stream."""

import base64
import binascii
import errno
from functools import partial
from urllib.parse import urlsplit

import h11
import structlog
import trio

from blacktree.api.access import unauthorized
from blacktree.api.auth import Auth, is_loopback
from blacktree.api.backlog import Backlog
from blacktree.api.budget import Budget
from blacktree.api.exchange import LINGER_SECONDS, Conversation
from blacktree.api.frame import Frames, close_frame
from blacktree.api.gate import Gate, plain_headers
from blacktree.api.http import make_app
from blacktree.api.idle import Idle
from blacktree.api.metrics import Tally
from blacktree.api.reception import Reception
from blacktree.api.socket import Session
from blacktree.api.tlswire import Certificate
from blacktree.api.views import Views
from blacktree.api.wire import Wire
from blacktree.config import DoorConfig
from blacktree.endpoints import split_address
from blacktree.errors import BadRequest, BlacktreeError, NotAllowed, Unavailable
from blacktree.orchestrator.control import Control

SOCKET_PATH = b"/ws"
# RFC 6455, section 7.4.1: policy violation.
_NO_LONGER = close_frame(1008)
UNPROVEN_BODIES = 4  # of the largest size; smaller ones the more
BODIES_EACH = 2  # of those from one network
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

log = structlog.get_logger()


class Door:
    """Serves a `Control` to the outside at `listen` (`HOST:PORT`; port 0: any free one)."""

    def __init__(self, control: Control, config: DoorConfig, *, listen: str, token: str) -> None:
        """Raises `BadRequest` for an address that is none, `NotAllowed` for one beyond loopback without a token."""
        self._host, self._port = split_address(listen)
        if not token and not is_loopback(self._host):
            raise NotAllowed(
                f"refusing to listen at {listen} without a token",
                code="token_required",
                advice="name a token file, or listen at 127.0.0.1",
            )
        self._control = control
        self._config = config
        self.auth = Auth(
            token,
            control.tokens,
            allowed_hosts=[*config.allowed_hosts, self._host, *public_host(config.public_url)],
            allowed_origins=[*config.allowed_origins, *public_origin(config.public_url)],
        )
        self.certificate = open_certificate(config)
        self.tally = Tally()
        self._frames = Frames()
        self.backlog = Backlog()
        self._idle = Idle()
        self._reception = Reception(self.auth, control, config, self._public_link)
        most = config.maximum_webhook_bytes
        self._budget = Budget(UNPROVEN_BODIES * most, BODIES_EACH * most, self._reception.network)
        self._views = Views(control, lambda seen: make_app(seen, self._reception, config, self.tally))
        self._gate = Gate(self._views, self._reception, self.tally)
        self.addresses: list[str] = []

    @property
    def scheme(self) -> str:
        """`https` with a certificate, else `http`."""
        return "http" if self.certificate is None else "https"

    def login_link(self) -> str:
        """The address of a page that lets a browser in: works once, for ten minutes. To be shown to its owner only."""
        return f"{self._own_url()}/login?token={self.auth.new_code()}"

    def _own_url(self) -> str:
        host, port = split_address(self.addresses[0])
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        return f"{self.scheme}://{shown}:{port}"

    def _public_link(self, token: str) -> str:
        return f"{self._config.public_url.rstrip('/') or self._own_url()}/login?token={self.auth.new_code(token)}"

    def reload(self) -> None:
        """Read the certificate anew; connections that are open keep theirs. Raises `BadRequest`, and then so do all."""
        if self.certificate is not None:
            self.certificate.reload()

    async def run(self, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `started()` with the bound addresses. Then every connection is closed in under 1 s.

        Raises `Unavailable` (code `address_in_use`, `cannot_listen`).
        """
        listeners = await self._listen()
        self.addresses = [_shown(listener.socket.getsockname()) for listener in listeners]
        async with trio.open_nursery() as nursery:
            await nursery.start(self._reception.presence.run)
            await nursery.start(partial(trio.serve_listeners, self._connection, listeners))
            for listener in listeners:
                self._control.sources.door_at(listener.socket.getsockname()[1])
            task_status.started(self.addresses)

    async def _listen(self) -> list[trio.SocketListener]:
        try:
            return await trio.open_tcp_listeners(self._port, host=self._host or None, backlog=1024)
        except OSError as error:
            where = f"{self._host}:{self._port}"
            if error.errno == errno.EADDRINUSE:
                message, code, advice = f"{where} is in use", "address_in_use", "listen elsewhere with --listen"
            else:
                message, code = f"cannot listen at {where}: {error.strerror or error}", "cannot_listen"
                low = " (ports below 1024 are for root)" if error.errno == errno.EACCES else ""
                advice = f"choose an address of this machine with --listen{low}"
            raise Unavailable(message, code=code, advice=advice) from None

    async def _connection(self, stream: trio.SocketStream) -> None:
        """One connection, whatever happens on it. Nothing but cancellation leaves here."""
        if self.tally.connections >= self._config.maximum_connections and not self._idle.make_room():
            self.tally.refused += 1
            await self._turn_away(stream)
            return
        self.tally.connections += 1
        wire: Wire | None = None
        try:
            with self._idle.waiting():
                wire = await self._wire(stream)
            if wire is None:
                return
            wire.backlog = self.backlog
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wire.guard)
                await self._talk(wire, nursery)
                wire.farewell = b""
                nursery.cancel_scope.cancel()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass
        except* Exception:
            log.exception("connection_failed")
        finally:
            self.tally.connections -= 1
            if wire is not None:
                wire.abort()
            await trio.aclose_forcefully(stream)

    async def _wire(self, stream: trio.SocketStream) -> Wire:
        seconds = self._config.send_seconds
        if self.certificate is None:
            return Wire(stream, send_seconds=seconds)
        return await self.certificate.open(stream, send_seconds=seconds, head_seconds=self._config.head_seconds)

    async def _turn_away(self, stream: trio.SocketStream) -> None:
        try:
            with trio.move_on_after(0.5):
                await stream.send_all(_FULL)
        except trio.BrokenResourceError:
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _talk(self, wire: Wire, nursery: trio.Nursery) -> None:
        conversation = Conversation(wire, self._gate, self._config, self._budget, self._idle)
        first = True
        while (request := await conversation.next_request(first=first)) is not None:
            if _wants_websocket(request):
                await self._websocket(wire, conversation, request, nursery)
                return
            if not await conversation.answer(request):
                return
            first = False

    async def _websocket(
        self, wire: Wire, conversation: Conversation, request: h11.Request, nursery: trio.Nursery
    ) -> None:
        headers, desk = plain_headers(list(request.headers)), self._reception
        try:
            address, secure = desk.came(headers, wire.peer, wire.secure)
            actor = desk.known(headers, wire.port, address)
            if actor is None:
                desk.limits.refused(address)
                raise unauthorized()
            self.auth.check_place(headers, actor, secure=secure)
            key = _check_handshake(headers)
        except BlacktreeError as error:
            await conversation.refuse(error)
            return
        conversation.replay(key)
        view = self._views.of(actor)
        session = Session(view.control, self._frames, view.feed, self._config, self.tally, actor, desk)

        def end() -> None:
            # The guard says the farewell, waits a moment for it to be taken, and closes.
            wire.farewell = _NO_LONGER
            nursery.cancel_scope.cancel(reason="the token is good no longer")

        async def end_when_expired() -> None:
            await desk.presence.wait_expired(actor)
            end()

        with desk.presence.entered(actor, end):
            if desk.presence.expires(actor):
                nursery.start_soon(end_when_expired)
            await session.run(wire)
        wire.farewell = b""
        await wire.linger(LINGER_SECONDS, 16 << 20)


def _wants_websocket(request: h11.Request) -> bool:
    if request.method != b"GET" or request.target.partition(b"?")[0] != SOCKET_PATH:
        return False
    headers = plain_headers(list(request.headers))
    tokens = [token.strip().lower() for token in headers.get("connection", "").split(",")]
    return "upgrade" in tokens and headers.get("upgrade", "").strip().lower() == "websocket"


def _check_handshake(headers: dict[str, str]) -> str:
    """RFC 6455, section 4.2.1; checked here so that the answer says what is wrong. Answers the key."""
    if headers.get("sec-websocket-version", "").strip() != "13":
        raise BadRequest("expected websocket version 13", code="upgrade_required")
    key = headers.get("sec-websocket-key", "").strip()
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != 16:
        raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64", code="malformed")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise BadRequest("an upgrade has no body", code="malformed")
    return key


def public_host(url: str) -> list[str]:
    """The name in `door.public_url`, if there is one. Raises `BadRequest` for what is no address."""
    if not url:
        return []
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
        raise BadRequest(
            f"door.public_url: {url!r} is no http or https address", path="door.public_url", code="invalid_config"
        )
    return [parts.hostname]


def public_origin(url: str) -> list[str]:
    """The origin that `door.public_url` has in a browser, if it is set: behind a proxy, `Host` may be another."""
    parts = urlsplit(url)
    return [f"{parts.scheme}://{parts.netloc}".lower()] if url else []


def open_certificate(config: DoorConfig) -> Certificate | None:
    """The door's, if one is named. Raises `BadRequest`."""
    if config.tls_key_file and not config.tls_certificate_file:
        raise BadRequest(
            "door.tls_key_file is set, and door.tls_certificate_file is not",
            path="door.tls_certificate_file",
            code="invalid_config",
        )
    if not config.tls_certificate_file:
        return None
    return Certificate(config.tls_certificate_file, config.tls_key_file)


def _shown(name: tuple[str, int]) -> str:
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
