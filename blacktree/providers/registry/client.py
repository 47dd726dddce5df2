"""A small registry client (OCI distribution specification 1.1): manifests, and the small blobs that describe them.

Layers are the engine's business. Plain http only where `may_be_plain` says so; nothing is believed that does not bear
the digest it was asked for.
"""

import hashlib
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx
import msgspec
import trio

from blacktree.concurrency.threads import in_loose_thread
from blacktree.errors import BlacktreeError, Broken, StepFailed
from blacktree.providers.base import Login
from blacktree.providers.registry.auth import Challenge, Token, basic, parse_challenge, read_token, token_request
from blacktree.providers.registry.faults import fault, from_answer
from blacktree.providers.registry.manifest import MEDIA_TYPES, Manifest
from blacktree.providers.registry.reference import Reference, is_loopback, may_be_plain

MAX_BODY_BYTES = 4 << 20  # the size of a manifest that registries must take (specification, "Pushing Manifests")
MAX_REDIRECTS = 3
CERTIFICATES = Path("/etc/docker/certs.d")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")

ReadLogin = Callable[[str], Login | None]
Connect = Callable[[bool], Awaitable[httpx.AsyncClient]]

# Trusts nobody: for clients that speak plain http.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class _Reply(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Registry:
    """One repository in one registry, for as long as a push takes. Made by `open_registry`."""

    def __init__(self, connect: Connect, reference: Reference, plain: bool, login: ReadLogin, seconds: float):
        self._connect = connect
        self._http: httpx.AsyncClient | None = None
        self._reference = reference
        self._plain = plain
        self._base = f"{'http' if plain else 'https'}://{reference.server}"
        self._read_login = login
        self._seconds = seconds
        self._challenge: Challenge | None = None
        self._token: Token | None = None
        self._login: Login | None = None
        self._meeting = trio.Lock()
        self._met = False

    @property
    def host(self) -> str:
        """The registry as the image's name has it."""
        return self._reference.host

    async def ready(self) -> None:
        """Meet the registry and get a token ahead of the first question. What fails here is told to who asks that."""
        with suppress(BlacktreeError):
            await self._meet()
            await self._authorization(fresh=False)

    async def head(self, tag: str) -> str | None:
        """The digest that a tag has now; None if there is no such tag (or repository)."""
        reply = await self._ask("HEAD", f"manifests/{tag}", f"HEAD of {self._named(tag)}", missing=True)
        if reply is None:
            return None
        digest = reply.headers.get("docker-content-digest", "")
        return digest if _DIGEST.match(digest) else None

    async def manifest(self, digest: str) -> Manifest:
        """A manifest by its digest, which its bytes must bear."""
        what = f"GET of {self._named(digest)}"
        reply = await self._ask("GET", f"manifests/{digest}", what)
        if reply is None or f"sha256:{hashlib.sha256(reply.body).hexdigest()}" != digest:
            raise fault("registry_garbage", f"{self.host}: {what}: the answer is not what has this digest")
        media = reply.headers.get("content-type", "").partition(";")[0].strip()
        if media not in MEDIA_TYPES:
            raise fault(
                "registry_garbage", f"{self.host}: {what}: a manifest of type {media[:100]!r} is not known here"
            )
        return Manifest(media_type=media, body=reply.body, digest=digest)

    async def blob(self, digest: str) -> bytes:
        """A small blob by its digest, which its bytes must bear."""
        what = f"GET of blob {digest}"
        reply = await self._ask("GET", f"blobs/{digest}", what)
        if reply is None or f"sha256:{hashlib.sha256(reply.body).hexdigest()}" != digest:
            raise fault("registry_garbage", f"{self.host}: {what}: the answer is not what has this digest")
        return reply.body

    async def put(self, tag: str, manifest: Manifest) -> None:
        """Point a tag (or, by its own digest, nothing) at a manifest whose parts are there. Idempotent."""
        what = f"PUT of {self._named(tag)}"
        headers = {"Content-Type": manifest.media_type}
        reply = await self._ask("PUT", f"manifests/{tag}", what, body=manifest.body, headers=headers)
        told = reply.headers.get("docker-content-digest", "") if reply is not None else ""
        if told and told != manifest.digest:
            raise fault("registry_garbage", f"{self.host}: {what}: the registry calls it {told[:100]}")

    async def delete_tag(self, tag: str) -> bool:
        """Take a tag away, never the manifest behind it; False where the registry does not do that."""
        try:
            await self._ask("DELETE", f"manifests/{tag}", f"DELETE of {self._named(tag)}", missing=True)
        except StepFailed as error:
            if error.again:
                raise
            return False
        return True

    def _named(self, tag: str) -> str:
        mark = "@" if tag.startswith("sha256:") else ":"
        return f"{self._reference.repository}{mark}{tag}"

    async def _ask(
        self,
        method: str,
        path: str,
        what: str,
        *,
        missing: bool = False,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> _Reply | None:
        """Ask, with a fresh token once more where the first is not taken. None for a 404 where that is `missing`."""
        await self._meet()
        url = f"{self._base}/v2/{self._reference.repository}/{path}"
        sent = {"Accept": ", ".join(MEDIA_TYPES), **(headers or {})}
        for fresh in (False, True):
            reply = await self._follow(method, url, what, body, sent | await self._authorization(fresh=fresh))
            if reply.status != 401 or fresh:
                break
            challenge = parse_challenge(reply.headers.get("www-authenticate", ""))
            if challenge is None:
                break
            self._challenge = challenge
        if missing and reply.status == 404:
            return None
        if reply.status >= 300:
            raise from_answer(reply.status, reply.headers, reply.body, what, self.host)
        return reply

    async def _meet(self) -> None:
        """Who is there? Sent without a login, so that none is told to whoever else listens on this port."""
        async with self._meeting:
            if not self._met:
                await self._introduce()
                self._met = True

    async def _introduce(self) -> None:
        self._http = await self._connect(not self._plain)
        reply = await self._send("GET", f"{self._base}/v2/", "the first question")
        if reply.status == 400 and self._plain and b"HTTPS" in reply.body:
            # A loopback or listed registry that has TLS after all: what Go's and nginx's servers say to plain http.
            self._base = f"https://{self._reference.server}"
            self._http = await self._connect(True)
            reply = await self._send("GET", f"{self._base}/v2/", "the first question")
        if reply.status == 401:
            self._challenge = parse_challenge(reply.headers.get("www-authenticate", ""))
        elif reply.status == 404 or 300 <= reply.status < 400:
            raise fault("registry_garbage", f"{self.host}: no registry answers there ({reply.status} for /v2/)")
        elif reply.status >= 400:
            raise from_answer(reply.status, reply.headers, reply.body, "the first question", self.host)

    async def _authorization(self, *, fresh: bool) -> dict[str, str]:
        challenge = self._challenge
        if challenge is None:
            return {}
        if self._login is None or fresh:
            # A credential helper may run: not on this thread. Anew each time, because logins expire too.
            self._login = await in_loose_thread(lambda: self._read_login(self.host))
        if challenge.scheme == "basic":
            return {"Authorization": basic(self._login)} if self._login is not None else {}
        if self._token is None or fresh or time.monotonic() >= self._token.until:
            self._token = await self._new_token(challenge)
        return {"Authorization": f"Bearer {self._token.value}"}

    async def _new_token(self, challenge: Challenge) -> Token:
        realm = _split(challenge.realm)
        what = f"a token from {realm.hostname or challenge.realm[:100]!r}"
        plain = realm.scheme == "http" and (self._plain and may_be_plain(realm.netloc, (self.host,)))
        if not realm.hostname or realm.username or not (realm.scheme == "https" or plain):
            raise fault("registry_garbage", f"{self.host}: names no token server that can be trusted: {what}")
        asked = token_request(challenge, self._login, f"repository:{self._reference.repository}:pull,push")
        method = "GET" if asked.form is None else "POST"
        reply = await self._send(method, asked.url, what, headers=asked.headers, form=asked.form)
        if reply.status in (400, 401, 403) and self._login is not None:
            raise fault("registry_unauthorized", f"{self.host}: {what}: {reply.status}, the login is not taken")
        if reply.status != 200:
            raise from_answer(reply.status, reply.headers, reply.body, what, self.host)
        try:
            return read_token(reply.body)
        except ValueError as error:
            raise fault("registry_garbage", f"{self.host}: {what}: {error}") from None

    async def _follow(self, method: str, url: str, what: str, body: bytes, headers: Mapping[str, str]) -> _Reply:
        """Ask, and go where a GET is sent to. A login never goes to another host, and nobody leads us off TLS."""
        for _ in range(MAX_REDIRECTS + 1):
            reply = await self._send(method, url, what, body=body, headers=headers)
            if reply.status not in (301, 302, 303, 307, 308):
                return reply
            before, url = _split(url), _joined(url, reply.headers.get("location", ""))
            after = _split(url)
            away = (before.scheme, before.netloc) != (after.scheme, after.netloc)
            downgraded = after.scheme != "https" and not (after.scheme == "http" and before.scheme == "http")
            if method not in ("GET", "HEAD") or downgraded or (away and "/blobs/" not in before.path):
                break
            if away:
                # Where a registry keeps its blobs: the address is signed, our login is none of its business.
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
        raise fault(
            "registry_redirect", f"{self.host}: {what}: it sends us to {_split(url).netloc[:200] or url[:200]!r}"
        )

    async def _send(
        self,
        method: str,
        url: str,
        what: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        form: dict[str, str] | None = None,
    ) -> _Reply:
        """One request and its answer, whole, within the time and the size that are allowed."""
        content: dict[str, Any] = {"data": form} if form is not None else {"content": body} if body else {}
        try:
            with trio.fail_after(self._seconds):
                try:
                    return await self._exchange(method, url, what, dict(headers or {}), content)
                except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
                    # A connection that was kept, and closed by the other side meanwhile: every request here is
                    # idempotent, and one more try takes a fresh one.
                    if isinstance(error, httpx.RemoteProtocolError) and "without sending a response" not in str(error):
                        raise
                return await self._exchange(method, url, what, dict(headers or {}), content)
        except (trio.TooSlowError, httpx.TimeoutException):
            raise fault("registry_slow", f"{self.host}: {what}: no whole answer in {self._seconds:g} s") from None
        except (httpx.RemoteProtocolError, httpx.DecodingError, httpx.LocalProtocolError) as error:
            # A connection that breaks off comes as the same error as an answer that is no HTTP.
            broken = "disconnected" in str(error) or "closed" in str(error) or "incomplete" in str(error)
            code = "registry_unreachable" if broken else "registry_garbage"
            raise fault(code, f"{self.host}: {what}: {error}") from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL):
            raise fault("registry_garbage", f"{self.host}: {what}: its address is none") from None
        except httpx.TransportError as error:
            text = str(error) or type(error).__name__
            code = "registry_certificate" if "CERTIFICATE" in text.upper() else "registry_unreachable"
            raise fault(code, f"{self.host}: {what}: {text}") from None

    async def _exchange(
        self, method: str, url: str, what: str, headers: dict[str, str], content: dict[str, Any]
    ) -> _Reply:
        if self._http is None:
            raise Broken("a registry was asked before it was met")
        request = self._http.build_request(method, url, headers=headers, **content)
        request.stream = _Whole(request.content)
        async with aclosing(await self._http.send(request, stream=True)) as answer:
            parts: list[bytes] = []
            size = 0
            # Ended by a cancellation: leaving the loop would leave httpx's generators to the collector.
            with trio.CancelScope() as enough:
                async for chunk in answer.aiter_raw():
                    size += len(chunk)
                    if size > MAX_BODY_BYTES:
                        enough.cancel()
                    else:
                        parts.append(chunk)
            if size > MAX_BODY_BYTES:
                raise fault("registry_garbage", f"{self.host}: {what}: the answer is over {MAX_BODY_BYTES} bytes")
            found = {name.lower(): value for name, value in answer.headers.items()}
            return _Reply(status=answer.status_code, headers=found, body=b"".join(parts))


class _Whole(httpx.AsyncByteStream):
    """A body in one piece. httpx's own is an async generator, which a cancellation would leave to the collector."""

    def __init__(self, body: bytes) -> None:
        self._pieces = iter([body] if body else [])

    def __aiter__(self) -> "_Whole":
        return self

    async def __anext__(self) -> bytes:
        try:
            return next(self._pieces)
        except StopIteration:
            raise StopAsyncIteration from None


def _split(url: str) -> SplitResult:
    """The parts of an address that somebody else wrote; of one that is none, none."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return ""


@asynccontextmanager
async def open_registry(
    reference: Reference, login: ReadLogin, *, insecure: Collection[str] = (), seconds: float = 30.0
) -> AsyncIterator[Registry]:
    """A client for the repository of this reference; `seconds` is how long one answer may take.

    Every method raises `StepFailed` with a code of `faults`, again=True where a later try can help.
    """
    async with AsyncExitStack() as clients:

        async def connect(secure: bool) -> httpx.AsyncClient:
            # The system's authorities take their time to be read: only where there is TLS.
            context = await in_loose_thread(lambda: tls_context(reference.host)) if secure else _NO_TLS
            return await clients.enter_async_context(
                httpx.AsyncClient(
                    verify=context,
                    timeout=httpx.Timeout(seconds),
                    limits=httpx.Limits(max_connections=8),
                    trust_env=not is_loopback(reference.server),
                    follow_redirects=False,
                    headers={"User-Agent": "blacktree", "Accept-Encoding": "identity"},
                )
            )

        yield Registry(connect, reference, may_be_plain(reference.server, insecure), login, seconds)


def tls_context(host: str) -> ssl.SSLContext:
    """The system's authorities, and those that the engine has for this registry. Blocks."""
    context = ssl.create_default_context()
    for path in sorted(CERTIFICATES.joinpath(host).glob("*.crt")) if "/" not in host else []:
        try:
            context.load_verify_locations(cafile=path)
        except (OSError, ssl.SSLError):
            continue
    return context
