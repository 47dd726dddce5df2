"""Who may come in: bearer tokens, browser sessions by one-time codes, and the Host and Origin checks."""

import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Mapping, Sequence

import msgspec
import trio

from blacktree.clock import now
from blacktree.errors import NotAllowed
from blacktree.orchestrator.tokencontrol import TokenControl
from blacktree.role import Role
from blacktree.token import FARM, Token, digest_of

CODE_SECONDS = 600.0
SESSION_SECONDS = 12 * 3600.0
# Of one token, and of all: whoever may do no more than read must not use up the places of others.
_CODES_EACH = 64
_MAXIMUM_CODES = 64 * _CODES_EACH

_PORT = re.compile(r"(:[0-9]*)?")

Headers = Mapping[str, str]


class Actor(msgspec.Struct, frozen=True):
    """Somebody who was let in; `ambient` if by a cookie, which a browser adds by itself.

    `token` is the id of the token, `repositories` its patterns (none: everything). `until`: when the session ends,
    in seconds since 1970. `address`: where from, as far as it is known.
    """

    name: str
    ambient: bool = False
    token: str = FARM
    role: Role = Role.ADMIN
    repositories: tuple[str, ...] = ()
    until: float | None = None
    address: str = ""
    token_name: str = ""


class Auth:
    """Knows the state directory's token, and the others by `tokens`. Sessions name the token they came from.

    They are signed with a key made of the state directory's: they outlive a restart, and end with either token.
    """

    def __init__(
        self,
        token: str,
        tokens: TokenControl,
        *,
        allowed_hosts: Sequence[str] = (),
        allowed_origins: Sequence[str] = (),
    ) -> None:
        self._tokens = tokens
        self.farm = Token(id=FARM, name="token", role=Role.ADMIN, created_at=now(), digest=b"")
        if token:
            self.farm = msgspec.structs.replace(self.farm, digest=digest_of(token))
        self._hosts = tuple(host.lower().rstrip(".") for host in allowed_hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in allowed_origins)
        self._codes: dict[bytes, tuple[float, str]] = {}
        self._key = hmac.digest(token.encode() or secrets.token_bytes(32), b"blacktree session", "sha256")

    def actor(self, headers: Headers, port: int, address: str = "") -> Actor | None:
        """Whoever the headers prove, or None. An `Authorization` header that is wrong is not mended by a cookie."""
        authorization = headers.get("authorization")
        if authorization is not None:
            scheme, _, text = authorization.partition(" ")
            token = self.shown(text.strip()) if scheme.lower() == "bearer" else None
            return None if token is None else _bearer(token, address)
        for pair in headers.get("cookie", "").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == cookie_name(port) and (actor := self._in_session(value, address)) is not None:
                return actor
        return None

    def shown(self, text: str) -> Token | None:
        """The valid token that this text is, in a time that tells nothing."""
        return self.farm if self.farm.is_shown_by(text) else self._tokens.shown(text)

    def token(self, identity: str) -> Token | None:
        """The token of this id, if it is valid."""
        return self.farm if identity == FARM else self._tokens.valid(identity)

    def holds(self, actor: Actor) -> bool:
        """Whether whoever was let in would be let in again: not revoked, not expired."""
        return self.token(actor.token) is not None and (actor.until is None or actor.until > time.time())

    def check_place(self, headers: Headers, actor: Actor | None, *, secure: bool, foreign: bool = False) -> None:
        """Refuse a browser that was lured here: a foreign `Host` (DNS rebinding) or a foreign `Origin`.

        `secure`: it came by TLS, and so must its page have come. `foreign`: pages of this origin may come
        nevertheless, but never by a cookie.

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
        # Not by TLS as far as is known: a proxy that is not named may have ended it.
        schemes = ("https",) if secure else ("https", "http")
        if origin in self._origins or any(origin == f"{scheme}://{host.lower()}" for scheme in schemes):
            return
        if foreign and not (actor is not None and actor.ambient):
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

    def new_code(self, token: str = FARM) -> str:
        """A code that can be exchanged once, for ten minutes, for a session of this token."""
        # Kept and looked up by digest: the time of a dictionary lookup then says nothing about the secret.
        code, time = secrets.token_urlsafe(24), trio.current_time()
        for digest in [digest for digest, (end, _) in self._codes.items() if end <= time]:
            del self._codes[digest]
        own = [digest for digest, (_, whose) in self._codes.items() if whose == token]
        for digest in own[: max(0, len(own) + 1 - _CODES_EACH)]:
            del self._codes[digest]
        while len(self._codes) >= _MAXIMUM_CODES:
            del self._codes[next(iter(self._codes))]
        self._codes[digest_of(code)] = (time + CODE_SECONDS, token)
        return code

    def exchange(self, code: str) -> Token | None:
        """The token whose session this code (which is used up) stands for, or None."""
        end, identity = self._codes.pop(digest_of(code), (0.0, ""))
        return self.token(identity) if end > trio.current_time() else None

    def new_session(self, token: Token) -> tuple[str, int]:
        """A fresh session, for a cookie, and its seconds: when it ends (since 1970), a nonce, its token, all signed."""
        end = time.time() + SESSION_SECONDS
        if token.expires_at is not None:
            end = min(end, token.expires_at.timestamp())
        claim = f"{int(end)}.{secrets.token_urlsafe(16)}.{token.id}"
        return f"{claim}.{self._signed(claim)}", max(0, int(end - time.time()))

    def _in_session(self, session: str, address: str) -> Actor | None:
        claim, _, signature = session.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signed(claim).encode()):
            return None
        end, _, rest = claim.partition(".")
        token = self.token(rest.rpartition(".")[2])
        if token is None or int(end) <= time.time():
            return None
        name = "browser" if token.id == FARM else token.name
        return _bearer(token, address, name=name, ambient=True, until=float(end))

    def _signed(self, claim: str) -> str:
        return hmac.digest(self._key, claim.encode("utf-8", "surrogateescape"), "sha256").hex()


def _bearer(token: Token, address: str, *, name: str = "", ambient: bool = False, until: float | None = None) -> Actor:
    return Actor(name or token.name, ambient, token.id, token.role, token.repositories, until, address, token.name)


def cookie_name(port: int) -> str:
    """Cookies know no ports: the name keeps two farms on one host apart."""
    return f"blacktree_{port}"


def host_name(host: str) -> str:
    """The name or address in a `Host` header, without port and brackets, lower case; empty if it makes no sense."""
    host = host.strip().lower()
    if host.startswith("["):
        name, closed, port = host[1:].partition("]")
        return name if closed and _PORT.fullmatch(port) else ""
    name, colon, port = host.partition(":")
    return name.rstrip(".") if _PORT.fullmatch(colon + port) else ""


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
