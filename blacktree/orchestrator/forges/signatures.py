"""Signatures over the raw bytes of a delivery, compared in constant time. Pure."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from blacktree.errors import NotAllowed

TOLERANCE_SECONDS = 300.0
"""How far a signed time may be from ours (Standard Webhooks)."""


def hex_hmac_matches(given: str, body: bytes, secret: bytes, prefix: str = "") -> bool:
    """Whether `given` is `prefix` and the hex HMAC-SHA256 of the body (GitHub, Gitea)."""
    expected = prefix + hmac.new(secret, body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), given.strip().encode("utf-8", "surrogateescape"))


def token_matches(given: str, secret: bytes) -> bool:
    """Whether `given` is the secret itself (GitLab's older way)."""
    # By digest: the time then says nothing about the secret's length either.
    found = hashlib.sha256(given.encode("latin-1", "replace")).digest()
    return hmac.compare_digest(found, hashlib.sha256(secret).digest())


def standard_matches(identity: str, timestamp: str, given: str, body: bytes, secret: bytes, now: float) -> bool:
    """Standard Webhooks (GitLab's signing token): base64 HMAC-SHA256 over `id.timestamp.body`, several by spaces."""
    try:
        fresh = abs(now - int(timestamp)) <= TOLERANCE_SECONDS
    except ValueError:
        fresh = False
    signed = b"%b.%b.%b" % (identity.encode("utf-8", "replace"), timestamp.encode("utf-8", "replace"), body)
    expected = b"v1," + base64.b64encode(hmac.new(_standard_key(secret), signed, hashlib.sha256).digest())
    found = False
    for each in given.split(" ")[:16]:
        found |= hmac.compare_digest(expected, each.encode("utf-8", "surrogateescape"))
    return found and fresh


def _standard_key(secret: bytes) -> bytes:
    """`whsec_` and base64 is how such secrets are written; any other text is the key itself."""
    if not secret.startswith(b"whsec_"):
        return secret
    try:
        return base64.b64decode(secret.removeprefix(b"whsec_"), validate=True)
    except binascii.Error:
        return secret


def need(headers: Mapping[str, str], *names: str) -> None:
    """Raises `NotAllowed` for a delivery that bears none of these signatures; `headers` by lower-case name."""
    if any(headers.get(name.lower()) for name in names):
        return
    raise NotAllowed(
        f"the delivery has no signature: header {' or '.join(names)} is missing",
        code="signature_missing",
        advice="give the webhook a secret in the forge's settings, the same as the source's",
    )


def wrong() -> NotAllowed:
    """A delivery that no declared source's secret has signed. Says no more: which sources there are is nobody's."""
    return NotAllowed(
        "no source here has a secret that fits this delivery's signature",
        code="signature_wrong",
        advice="the webhook's secret in the forge and the source's webhook secret must be the same",
    )
