"""An outgoing webhook: where it goes, which events, how it is signed (standardwebhooks.com, version 1.0.0). Pure."""

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from blacktree.address import parse_address
from blacktree.deployment import VersionState
from blacktree.errors import BadRequest
from blacktree.job import JobState
from blacktree.secret import checked_scope, fits_any
from blacktree.source import SourceName, VaultName
from blacktree.strict import convert

MAXIMUM_TARGETS = 100
TEST_EVENT = "notify.test"
EVENTS = (*(f"job.{state}" for state in JobState), *(f"deployment.{state}" for state in VersionState))
DEFAULT_EVENTS = [
    *(f"job.{state}" for state in ("succeeded", "failed", "canceled", "timed_out", "lost")),
    *(f"deployment.{state}" for state in ("running", "failed", "stopped")),
]

EventPattern = Annotated[str, Meta(min_length=1, max_length=64)]


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whom to tell what.

    `events`: names or glob patterns of `EVENTS`; empty: every end of a job, and versions that run, fail or stop.
    `repositories`: patterns as secrets have them; empty: any. `secret`: in the vault, of kind `webhook`.
    """

    name: SourceName
    url: Annotated[str, Meta(min_length=1, max_length=2048)]
    secret: VaultName
    events: Annotated[list[EventPattern], Meta(max_length=64)] = []
    repositories: Annotated[list[str], Meta(max_length=64)] = []
    paused: bool = False

    def wants(self, event: str, repository: str | None) -> bool:
        """Whether it is told of this event of this repository (None: it is of none that is known)."""
        if self.paused or not any(fnmatch.fnmatchcase(event, each) for each in self.events or DEFAULT_EVENTS):
            return False
        return not self.repositories or (repository is not None and fits_any(repository, self.repositories))


def target_from(value: dict[str, Any], where: str = "target") -> Target:
    """A target from decoded JSON or TOML, checked. Raises `BadRequest` with the path."""
    return checked(convert(value, Target, where=where), where)


def checked(target: Target, where: str = "target") -> Target:
    """The target itself, if it can ever work. Raises `BadRequest` with the path."""
    _check_url(target.url, f"{where}.url")
    for index, pattern in enumerate(target.events):
        if not fnmatch.filter(EVENTS, pattern):
            raise BadRequest(
                f"{where}.events[{index}]: no event is called {pattern[:64]!r}",
                path=f"{where}.events[{index}]",
                code="invalid",
                advice=f"events are {', '.join(EVENTS)}; `job.*` is any of a kind",
            )
    try:
        checked_scope((), target.repositories)
    except BadRequest as error:
        raise BadRequest(f"{where}.{error.message}", path=f"{where}.repositories", advice=error.advice) from None
    return target


def _check_url(url: str, where: str) -> None:
    """What may be told: any http or https address that whoever runs the farm names, private ones too."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("https", "http") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    if not fine or any(ord(char) <= 32 or ord(char) > 126 for char in url) or "#" in url:
        advice = "write it like https://chat.example.org/hooks/blacktree"
        raise BadRequest(f"{where}: is no http or https address", path=where, code="invalid", advice=advice)
    if "@" in parts.netloc:
        raise BadRequest(
            f"{where}: bears a user or a password",
            path=where,
            code="credentials_in_address",
            advice="deliveries are proven by their signature; leave user and password out",
        )


def signed(secret: bytes, id: str, moment: datetime, body: bytes) -> dict[str, str]:
    """The three headers that prove a delivery. The signature covers id, time and the raw bytes of the body."""
    timestamp = str(int(moment.timestamp()))
    content = f"{id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.digest(key_of(secret), content, hashlib.sha256)).decode()
    return {"webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{signature}"}


def key_of(secret: bytes) -> bytes:
    """The key: what follows `whsec_` in base64; any other secret as it is, without the newline of a file."""
    text = secret.strip()
    if text.startswith(b"whsec_"):
        try:
            return base64.b64decode(text[6:], validate=True)
        except binascii.Error:
            pass
    return text


def wanting(targets: Sequence[Target], event: str, repository: str | None) -> list[str]:
    """The names of those that are told of it."""
    return [target.name for target in targets if target.wants(event, repository)]


def repository_shown(repository: str) -> str | None:
    """An address as it may be told to others; a path on somebody's disk is none of their business."""
    try:
        return None if parse_address(repository, allow_local=True).local else repository
    except BadRequest:
        return None
