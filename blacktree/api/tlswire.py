"""TLS on the door: certificates that are read anew on demand, and a `Wire` that speaks through them."""

import ssl
from pathlib import Path

import structlog
import trio

from blacktree.api.wire import Wire
from blacktree.errors import BadRequest

_PIECE = 16 * 1024
_PLAIN_HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 23\r\nConnection: close\r\n\r\nthis port speaks https\n"

log = structlog.get_logger()


class Certificate:
    """The door's certificate and key. A connection keeps the one with which it was made."""

    def __init__(self, certificate_file: str, key_file: str) -> None:
        """Raises `BadRequest` for files that cannot be used."""
        self._files = (certificate_file, key_file)
        self._context = self._read()

    def reload(self) -> None:
        """Read the files again, for connections from now on. Raises `BadRequest`; then the old ones are still used."""
        self._context = self._read()

    def own(self) -> str:
        """The certificate alone, without its chain and key (PEM), as it was when it was last read."""
        return self._own

    def _read(self) -> ssl.SSLContext:
        # A context of its own: one that is in use could be left with a certificate and another's key.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_alpn_protocols(["http/1.1"])
        certificate, key = self._files
        try:
            context.load_cert_chain(certificate, key or None, _no_password)
            own = _first(Path(certificate).read_text(encoding="ascii", errors="replace"))
        except (OSError, ssl.SSLError, ValueError) as error:
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
            raise BadRequest(
                f"door.tls_certificate_file {certificate} and door.tls_key_file {key} cannot be used: {why}",
                path="door.tls_certificate_file",
                code="door_certificate",
                advice="give a PEM certificate (with its chain) and its own unencrypted key, readable by this user",
            ) from None
        self._own = own
        return context

    async def open(self, stream: trio.SocketStream, *, send_seconds: float, head_seconds: float) -> "TlsWire":
        """A wire after its handshake. Raises `trio.BrokenResourceError`, also when that takes more than
        `head_seconds`."""
        wire = TlsWire(stream, send_seconds=send_seconds, context=self._context)
        try:
            with trio.fail_after(head_seconds):
                await wire.shake_hands()
        except trio.TooSlowError:
            wire.abort()
            raise trio.BrokenResourceError("no TLS handshake in time") from None
        except BaseException:
            wire.abort()
            raise
        return wire


def _no_password() -> str:
    # Without this OpenSSL would ask on the terminal.
    raise ValueError("the key is encrypted")


def _first(chain: str) -> str:
    end = "-----END CERTIFICATE-----"
    begin = chain.index("-----BEGIN CERTIFICATE-----")
    return chain[begin : chain.index(end, begin) + len(end)] + "\n"


class TlsWire(Wire):
    """A wire whose bytes are encrypted on their way; it promises what `Wire` does."""

    secure = True

    def __init__(self, stream: trio.SocketStream, *, send_seconds: float, context: ssl.SSLContext) -> None:
        super().__init__(stream, send_seconds=send_seconds)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def shake_hands(self) -> None:
        """Raises `trio.BrokenResourceError` for a peer that does not."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
                if self._incoming.eof:
                    raise trio.BrokenResourceError("the peer left during the handshake") from None
                continue
            except ssl.SSLError as error:
                # The alert, or a word for whoever took the wrong scheme.
                alert = self._outgoing.read()
                await self._push_raw(_PLAIN_HTTP if error.reason == "HTTP_REQUEST" else alert)
                await self.linger(1.0, _PIECE)
                raise trio.BrokenResourceError(f"no TLS handshake: {error.reason}") from None
            await self._flush()
            return

    async def _receive(self, max_bytes: int) -> bytes:
        while True:
            try:
                data = self._tls.read(max_bytes)
            except ssl.SSLWantReadError:
                await self._flush()
                if self._incoming.eof:
                    # Cut off without a farewell: HTTP and websockets know themselves whether all has come.
                    return b""
                await self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                self.abort()
                raise trio.BrokenResourceError(f"TLS: {error.reason}") from None
            else:
                if self._outgoing.pending:
                    await self._flush()
                else:
                    await trio.lowlevel.checkpoint()
                return data

    async def _fill(self) -> None:
        data = await self._stream.receive_some(65536)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        """What TLS has to say by itself."""
        if self._outgoing.pending:
            async with self._turn:
                await self._push_raw(self._outgoing.read())

    async def _push(self, data: bytes | bytearray | memoryview, seconds: float | None = None) -> None:
        view = memoryview(data)
        try:
            for begin in range(0, len(view), _PIECE):
                self._tls.write(view[begin : begin + _PIECE])
        except ssl.SSLError as error:
            raise trio.ClosedResourceError("this side was ended") from error
        await self._push_raw(self._outgoing.read(), seconds)

    async def _push_raw(self, data: bytes, seconds: float | None = None) -> None:
        if data:
            await super()._push(data, seconds)

    def _shut(self) -> None:
        try:
            self._tls.unwrap()
        except (ssl.SSLError, ValueError):
            pass
        if not self._closed and (last := self._outgoing.read()):
            try:
                self._send_now(last)
            except trio.BrokenResourceError:
                return
        super()._shut()
