"""A token of the door: who bears it, what its bearer may do and for which repositories. Pure.

What the bearer shows is `bt_ID_SECRET`; only its digest is kept. It is random and long, so a plain hash is enough.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import Meta

from blacktree.errors import BadRequest
from blacktree.role import Role
from blacktree.secret import checked_scope, fits_any

PREFIX = "bt"
FARM = "farm"
"""The id of the one token in the state directory."""
LONGEST_SECONDS = 10 * 366 * 86400.0
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token on record. `repositories`: patterns; empty: all of them, and the farm itself."""

    id: str
    name: str
    role: Role
    created_at: datetime
    repositories: tuple[str, ...] = ()
    expires_at: datetime | None = None
    created_by: str = ""
    revoked_at: datetime | None = None
    revoked_by: str = ""
    digest: bytes = b""

    def __repr__(self) -> str:
        return f"Token({self.id!r}, {self.name!r}, {self.role!r})"

    def valid(self, time: datetime) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or time < self.expires_at)

    def is_shown_by(self, text: str) -> bool:
        """Whether this text is the token, in a time that tells nothing."""
        return bool(self.digest) and hmac.compare_digest(digest_of(text), self.digest)

    def reaches(self, repository: str) -> bool:
        """Whether the bearer may know of this repository."""
        return not self.repositories or fits_any(repository, self.repositories)


class NewToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is asked for. `expires_in_seconds`: null for a token that lasts until it is revoked."""

    name: str
    role: Role
    repositories: Annotated[list[str], Meta(max_length=64)] = []
    expires_in_seconds: Annotated[float, Meta(gt=0, le=LONGEST_SECONDS)] | None = None


def digest_of(text: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def make_token(wanted: NewToken, taken: Collection[str], time: datetime, by: str) -> tuple[Token, str]:
    """A fresh token and what its bearer shows. Raises `BadRequest`. `taken`: ids that are in use."""
    if not _NAME.match(wanted.name):
        raise BadRequest(
            f"name: {wanted.name[:80]!r} cannot name a token",
            path="name",
            advice="use 1 to 64 of the characters A-Z a-z 0-9 . _ @ -",
        )
    if wanted.role is Role.NONE:
        raise BadRequest("role: a token has one of view, submit, admin", path="role", code="invalid")
    patterns = checked_scope((), wanted.repositories).repositories
    while (identity := "".join(secrets.choice(_ALPHABET) for _ in range(8))) in taken or identity == FARM:
        pass
    text = f"{PREFIX}_{identity}_{secrets.token_urlsafe(32)}"
    seconds = wanted.expires_in_seconds
    token = Token(
        id=identity,
        name=wanted.name,
        role=wanted.role,
        created_at=time,
        repositories=tuple(patterns),
        expires_at=None if seconds is None else time + timedelta(seconds=seconds),
        created_by=by,
        digest=digest_of(text),
    )
    return token, text


def id_in(text: str) -> str:
    """The id that a shown token names; empty if it is none of ours."""
    parts = text.split("_", 2)
    return parts[1] if len(parts) == 3 and parts[0] == PREFIX else ""
