"""Who we are to a registry: basic logins and bearer tokens (distribution "Token Authentication", RFC 6750). Pure."""

import base64
import re
import time
from urllib.parse import urlencode, urlsplit

import msgspec

from blacktree.providers.base import Login

# Where a registry gave a token instead of taking a password (`docker login`'s "identitytoken").
IDENTITY = "<token>"
_DEFAULT_LIFE_SECONDS = 60.0
_MARGIN_SECONDS = 10.0
_PARAMETER = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """What a registry asks for: `scheme` is `basic` or `bearer`; the rest is a token server's."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""


def parse_challenge(header: str) -> Challenge | None:
    """A `WWW-Authenticate` header; bearer wins where both are offered, None for what is not known here.

    >>> parse_challenge('Bearer realm="https://a/t",service="r"')
    Challenge(scheme='bearer', realm='https://a/t', service='r', scope='')
    """
    found = re.search(r"\bbearer\s+(.*)", header[:8192], re.IGNORECASE | re.DOTALL)
    if found:
        values = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(found[1])}
        return Challenge(
            scheme="bearer",
            realm=values.get("realm", ""),
            service=values.get("service", ""),
            scope=values.get("scope", ""),
        )
    return Challenge(scheme="basic") if re.search(r"\bbasic\b", header, re.IGNORECASE) else None


def basic(login: Login) -> str:
    """The header for a name and a password."""
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """How a token is asked for: a GET, or a POST with a form where the login is itself a token."""

    url: str
    headers: dict[str, str] = {}
    form: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"TokenRequest({self.url!r})"


def token_request(challenge: Challenge, login: Login | None, scope: str) -> TokenRequest:
    """The request for a token of this scope."""
    asked = {"service": challenge.service, "scope": scope} if challenge.service else {"scope": scope}
    if login is not None and login.username == IDENTITY:
        form = asked | {"grant_type": "refresh_token", "client_id": "blacktree", "refresh_token": login.password}
        return TokenRequest(url=challenge.realm, form=form)
    mark = "&" if urlsplit(challenge.realm).query else "?"
    headers = {"Authorization": basic(login)} if login is not None else {}
    return TokenRequest(url=f"{challenge.realm}{mark}{urlencode(asked)}", headers=headers)


class _Answer(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class Token(msgspec.Struct, frozen=True):
    """A bearer token, and until when it is used (monotonic clock, seconds)."""

    value: str
    until: float

    def __repr__(self) -> str:
        return "Token(***)"


def read_token(body: bytes) -> Token:
    """A token server's answer. Raises ValueError for anything else."""
    try:
        answer = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ValueError("no token in the answer") from None
    value = answer.token or answer.access_token
    if not value or not value.isascii() or not value.isprintable():
        raise ValueError("no token in the answer")
    life = answer.expires_in if answer.expires_in and answer.expires_in > 0 else _DEFAULT_LIFE_SECONDS
    return Token(value, time.monotonic() + max(life - _MARGIN_SECONDS, life / 2))
