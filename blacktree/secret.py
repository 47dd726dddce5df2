"""What the farm's secrets are: kinds, names, and the scope that says which jobs get one. Pure."""

import re
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from blacktree.address import Address, parse_address
from blacktree.errors import BadRequest, TooLarge
from blacktree.secretfiles import MAXIMUM_BYTES

MAXIMUM_LOGIN_BYTES = 16 * 1024
MOST_PATTERNS = 64
HUB = "docker.io"
HUB_NAMES = frozenset({HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})

_NAME = re.compile(r"[A-Za-z0-9._-]{1,256}\Z")
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9._-]{0,252})|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?\Z")
_SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_PATTERN = re.compile(r"[^\s\x00-\x1f\x7f?\[\]]{1,512}\Z")
_DEFAULT_PORTS = {"https": "443", "ssh": "22", "http": "80", "git": "9418"}
# What a pattern without a scheme stands for: nobody on the way can put another repository in its place.
_PROVEN = frozenset({"https", "ssh"})


class SecretKind(StrEnum):
    """What a secret is for; names are apart by kind."""

    BUILD = "build"
    REGISTRY = "registry"
    RUN = "run"
    WEBHOOK = "webhook"
    FORGE = "forge"


HOSTS = frozenset({SecretKind.REGISTRY, SecretKind.FORGE})
"""Kinds that are named by a host."""


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Who gets a secret: everybody if empty; else jobs of these sources, and of repositories that fit a pattern."""

    sources: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()

    def permits(self, source: str | None, repository: str | None) -> bool:
        """Whether a job of this declared source (None: a person's) and this repository gets it."""
        if self.sources and source not in self.sources:
            return False
        return not self.repositories or (repository is not None and fits_any(repository, self.repositories))


class SecretView(msgspec.Struct, frozen=True, kw_only=True):
    """A secret as it is listed: everything but its value. `readable`: the farm's key opens it."""

    kind: SecretKind
    name: str
    sources: tuple[str, ...]
    repositories: tuple[str, ...]
    created_at: datetime
    updated_at: datetime
    readable: bool


class LoginValue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The value of a secret of kind `registry`, as JSON."""

    username: Annotated[str, Meta(min_length=1, max_length=512)]
    password: Annotated[str, Meta(min_length=1)]

    def __repr__(self) -> str:
        return "LoginValue(***)"


def kind_named(text: str) -> SecretKind:
    """Raises `BadRequest` (code `unknown_kind`)."""
    try:
        return SecretKind(text)
    except ValueError:
        kinds = ", ".join(SecretKind)
        raise BadRequest(
            f"there is no kind of secret {text[:40]!r}", path="kind", code="unknown_kind", advice=f"kinds: {kinds}"
        ) from None


def checked_name(kind: SecretKind, name: str) -> str:
    """The name as it is kept (a host in its one spelling). Raises `BadRequest`."""
    if kind in HOSTS:
        return host_name(name)
    if not _NAME.match(name) or name in (".", ".."):
        raise BadRequest(
            f"name: {name[:80]!r} cannot name a secret",
            path="name",
            advice="use 1 to 256 of the characters A-Z a-z 0-9 . _ -",
        )
    return name


def host_name(text: str) -> str:
    """`host` or `host:port` in lower case, from that or from a URL; Docker Hub's names are one. Raises `BadRequest`."""
    host = text.strip().lower()
    scheme, mark, rest = host.partition("://")
    if mark and scheme in ("https", "http"):
        # `docker login` keeps Docker Hub as https://index.docker.io/v1/.
        host, _, path = rest.partition("/")
        if path.strip("/") not in ("", "v1", "v2"):
            host = text
    if not _HOST.match(host):
        raise BadRequest(
            f"name: {text[:80]!r} is no host", path="name", advice="give host or host:port, e.g. registry.example:5000"
        )
    return HUB if host in HUB_NAMES else host


def checked_value(kind: SecretKind, value: bytes) -> bytes:
    """Raises `BadRequest` for an empty value or a login of another form, `TooLarge`."""
    if not value:
        raise BadRequest("value: is empty", path="value", code="empty_value", advice="`secret remove` takes one away")
    most = MAXIMUM_LOGIN_BYTES if kind is SecretKind.REGISTRY else MAXIMUM_BYTES
    if len(value) > most:
        raise TooLarge(f"value: {len(value)} bytes, the limit is {most}", path="value")
    if kind is SecretKind.REGISTRY:
        parse_login(value)
    return value


def parse_login(value: bytes) -> LoginValue:
    """Raises `BadRequest`, which tells nothing of the value."""
    try:
        login = msgspec.json.decode(value, type=LoginValue)
    except (msgspec.DecodeError, UnicodeError):
        login = None
    if login is None or ":" in login.username or any(ord(char) < 32 for char in login.username + login.password):
        raise BadRequest(
            "value: a registry's login is a JSON object with `username` and `password`",
            path="value",
            advice="use `blacktree registry login HOST --username USER`",
        )
    return login


def checked_scope(sources: Sequence[str], repositories: Sequence[str]) -> Scope:
    """Each once, in order. Raises `BadRequest`."""
    for what, given in (("sources", sources), ("repositories", repositories)):
        if len(given) > MOST_PATTERNS:
            raise BadRequest(f"{what}: {len(given)} of them, the limit is {MOST_PATTERNS}", path=what)
    for source in sources:
        if not _SOURCE.match(source):
            raise BadRequest(f"sources: {source[:80]!r} cannot be a source's name", path="sources")
    for pattern in repositories:
        if not _PATTERN.match(pattern) or "/" not in pattern.partition("://")[2 if "://" in pattern else 0]:
            raise BadRequest(
                f"repositories: {pattern[:80]!r} cannot fit a repository",
                path="repositories",
                advice="use a form like github.com/owner/* (one part), github.com/** (any) or https://host:8443/team/app",
            )
    return Scope(sources=tuple(sorted(set(sources))), repositories=tuple(sorted(set(repositories))))


def fits_any(repository: str, patterns: Sequence[str]) -> bool:
    """Whether this repository's address fits one of the patterns.

    `host/path` fits https and ssh, `/path` a local one; with a scheme only that one. `*` is any text within a part of
    the path (or of the host), `**` any number of parts. `.git` at the end and a user's name do not matter; upper and
    lower case do, but for the host. An address with a part `.` or `..`, an escape or a query fits nothing.
    """
    try:
        address = parse_address(repository, allow_local=True)
    except BadRequest:
        return False
    place = _place(address)
    return place is not None and any(_fits(address.scheme, place, pattern) for pattern in patterns)


def _place(address: Address) -> str | None:
    path = _trimmed(address.path.lstrip("/") if not address.local else address.path.strip("/"))
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or any(char in path for char in "%?#\\"):
        return None
    port = "" if address.port == _DEFAULT_PORTS.get(address.scheme) else address.port
    return f"{address.host}{':' + port if port else ''}/{path}"


def _trimmed(path: str) -> str:
    return path.rstrip("/").removesuffix(".git")


def _fits(scheme: str, place: str, pattern: str) -> bool:
    wanted, mark, rest = pattern.partition("://")
    if not mark:
        # A path on the worker's own disk needs no scheme: it begins with a slash.
        if scheme not in ({"file"} if pattern.startswith("/") else _PROVEN):
            return False
        rest = pattern
    elif wanted.lower() != scheme:
        return False
    host, _, path = rest.partition("/")
    host = host.rpartition("@")[2]
    default = _DEFAULT_PORTS.get(scheme, "")
    host = host.lower().removesuffix(f":{default}") if default else host.lower()
    return _expression(f"{host}/{_trimmed(path)}").match(place) is not None


def _expression(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", pattern)
    return re.compile(
        "".join({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in parts) + r"\Z", re.DOTALL
    )
