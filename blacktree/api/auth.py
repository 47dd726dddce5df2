"""Who may come in: the bearer token, browser sessions by one-time codes, and the Host and Origin checks."""

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Mapping, Sequence

import msgspec
import trio

from blacktree.errors import NotAllowed

CODE_SECONDS = 600.0
SESSION_SECONDS = 12 * 3600.0
_MAXIMUM_CODES = 64

Headers = Mapping[str, str]


class Actor(msgspec.Struct, frozen=True):
    """Somebody who was let in; `ambient` if by a cookie, which a browser adds by itself."""

    name: str
    ambient: bool = False


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


class Auth:
    """Knows the token. Sessions are signed with a key made of it: they outlive a restart, and end with the token."""

    def __init__(self, token: str, *, allowed_hosts: Sequence[str] = (), allowed_origins: Sequence[str] = ()) -> None:
        self._token = _digest(token) if token else None
        self._hosts = tuple(host.lower().rstrip(".") for host in allowed_hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in allowed_origins)
        self._codes: dict[bytes, float] = {}
        self._key = hmac.digest(token.encode() or secrets.token_bytes(32), b"blacktree session", "sha256")

    def actor(self, headers: Headers, port: int) -> Actor | None:
        """Whoever the headers prove, or None. An `Authorization` header that is wrong is not mended by a cookie."""
        authorization = headers.get("authorization")
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            return Actor("token") if scheme.lower() == "bearer" and self.is_token(token.strip()) else None
        for pair in headers.get("cookie", "").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == cookie_name(port) and self._is_session(value):
                return Actor("browser", ambient=True)
        return None

    def is_token(self, token: str) -> bool:
        """Whether this is the token, in a time that tells nothing."""
        return self._token is not None and hmac.compare_digest(_digest(token), self._token)

    def check_place(self, headers: Headers, actor: Actor | None) -> None:
        """Refuse a browser that was lured here: a foreign `Host` (DNS rebinding) or a foreign `Origin`.

        Raises `NotAllowed` (code `host_not_allowed` or `origin_not_allowed`). Programs send no Origin and pass.
        """
        host = headers.get("host", "")
        if not self._known_host(host):
            raise NotAllowed(
                f"the name {host[:100]!r} is not one of this door's",
                code="host_not_allowed",
                advice="use its IP address, or add the name to `allowed_hosts` in section [door]",
            )
        origin = headers.get("origin")
        if origin is None:
            if actor is not None and actor.ambient:
                raise NotAllowed("a request by cookie must name its Origin", code="origin_not_allowed")
            return
        origin = origin.lower()
        if origin in (f"http://{host.lower()}", f"https://{host.lower()}") or origin in self._origins:
            return
        raise NotAllowed(
            f"pages of {origin[:100]!r} may not use this door",
            code="origin_not_allowed",
            advice="add the origin to `allowed_origins` in section [door]",
        )

    def _known_host(self, host: str) -> bool:
        name = host_name(host)
        # An attacker who rebinds DNS needs a name; an address cannot be rebound.
        if not name or is_address(name) or name == "localhost" or name.endswith(".localhost"):
            return bool(name)
        return any(
            allowed == "*" or name == allowed or (allowed.startswith(".") and name.endswith(allowed))
            for allowed in self._hosts
        )

    def new_code(self) -> str:
        """A code that can be exchanged once, for ten minutes."""
        code = secrets.token_urlsafe(24)
        self._remember(self._codes, code, CODE_SECONDS, _MAXIMUM_CODES)
        return code

    def exchange(self, code: str) -> str | None:
        """A session for a code (which is used up), or None."""
        digest = _digest(code)
        alive = self._alive(self._codes, digest)
        self._codes.pop(digest, None)
        return self.new_session() if alive else None

    def new_session(self) -> str:
        """A fresh session, for a cookie: when it ends (seconds since 1970), a nonce, and both signed."""
        claim = f"{int(time.time() + SESSION_SECONDS)}.{secrets.token_urlsafe(16)}"
        return f"{claim}.{self._signed(claim)}"

    def _is_session(self, session: str) -> bool:
        claim, _, signature = session.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signed(claim).encode()):
            return False
        return int(claim.partition(".")[0]) > time.time()

    def _signed(self, claim: str) -> str:
        return hmac.digest(self._key, claim.encode("utf-8", "surrogateescape"), "sha256").hex()

    # Kept and looked up by digest: the time of a dictionary lookup then says nothing about the secret.
    @staticmethod
    def _alive(known: dict[bytes, float], digest: bytes) -> bool:
        return known.get(digest, 0.0) > trio.current_time()

    @staticmethod
    def _remember(known: dict[bytes, float], secret: str, seconds: float, most: int) -> None:
        now = trio.current_time()
        for digest in [digest for digest, end in known.items() if end <= now]:
            del known[digest]
        while len(known) >= most:
            del known[next(iter(known))]
        known[_digest(secret)] = now + seconds


def cookie_name(port: int) -> str:
    """Cookies know no ports: the name keeps two farms on one host apart."""
    return f"blacktree_{port}"


def host_name(host: str) -> str:
    """The name or address in a `Host` header, without port and brackets, lower case; empty if it makes no sense."""
    host = host.strip().lower()
    if host.startswith("["):
        name, closed, port = host[1:].partition("]")
        return name if closed and (port == "" or port.startswith(":")) else ""
    name, _, port = host.partition(":")
    return name.rstrip(".") if ":" not in port else ""


def is_address(name: str) -> bool:
    """Whether this is an IP literal."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Whether listening here is reachable from this machine alone."""
    if name == "localhost":
        return True
    return is_address(name) and ipaddress.ip_address(name).is_loopback
