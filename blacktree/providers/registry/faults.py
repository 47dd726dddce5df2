"""The one table from what registries say to our errors: from an answer's status, and from the engine's words.

Codes: `registry_unauthorized` (no login, a wrong one, an expired one), `registry_denied` (may not do this),
`repository_missing`, `manifest_missing`, `tag_immutable`, `registry_limited` (429), `registry_failed` (5xx),
`registry_unreachable` (refused, reset, unknown host), `registry_slow` (silent), `registry_garbage` (no registry's
answer), `registry_refused` (any other refusal), `registry_insecure`, `registry_certificate`, `registry_redirect`.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

from blacktree.errors import StepFailed

MAX_RETRY_AFTER_SECONDS = 3600.0
MAX_TEXT = 500

# code: (again, advice)
ADVICE: dict[str, tuple[bool, str]] = {
    "registry_unauthorized": (
        False,
        "the login is missing, or wrong: give the farm one for this registry (`blacktree registry login HOST`), or log"
        " in on the worker (docker login); see docs/registries.md",
    ),
    "registry_denied": (False, "this login may not push there: check the image's name and the login's rights"),
    "repository_missing": (False, "create the repository in the registry, or check the image's name"),
    "manifest_missing": (True, "was it deleted meanwhile? a lifecycle rule of the registry may be too eager"),
    "tag_immutable": (False, "the registry lets no tag be moved: use a new tag, or allow it in the registry"),
    "registry_limited": (True, "the registry limits how often it may be asked: try later, or raise its limit"),
    "registry_failed": (True, "this is the registry's own fault: see its log"),
    "registry_unreachable": (True, "check the host in the image's name, and the worker's network and proxy"),
    "registry_slow": (
        True,
        "see whether the registry is overloaded; `worker.registry_timeout_seconds` bounds the wait",
    ),
    "registry_garbage": (False, "is this a registry? check the host and port in the image's name"),
    "registry_refused": (False, ""),
    "registry_insecure": (
        False,
        "give the registry TLS, or list it in `worker.insecure_registries` and in the engine's `insecure-registries`",
    ),
    "registry_certificate": (
        False,
        "install the registry's certificate authority in /etc/docker/certs.d/HOST/ca.crt on the worker",
    ),
    "registry_redirect": (False, "name the host in the image that the registry sends us to"),
}

_IMMUTABLE = r"immutable|tag.{0,200}already exists|cannot be overwritten|ImageTagAlreadyExists"

# The engine's words; the first match wins.
_TABLE: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), code)
    for pattern, code in (
        (r"toomanyrequests|too many requests|rate limit|status: 429|\b429\b", "registry_limited"),
        (_IMMUTABLE, "tag_immutable"),
        (r"server gave HTTP response to HTTPS client", "registry_insecure"),
        (r"x509:|certificate|tls: (?!.*timeout)", "registry_certificate"),
        (
            r"unauthorized|authentication required|no basic auth credentials|authorization token has expired|"
            r"\b401\b|incorrect username or password",
            "registry_unauthorized",
        ),
        (r"name unknown|repository .*does not exist|repository .*not found|NAME_UNKNOWN", "repository_missing"),
        (r"denied|forbidden|insufficient_scope|\b403\b", "registry_denied"),
        (r"HTTP status: 5\d\d|status code 5\d\d|50[0234] |internal server error|bad gateway", "registry_failed"),
        (r"timeout|deadline exceeded|timed out", "registry_slow"),
        (
            r"connection refused|connection reset|no such host|server misbehaving|network is unreachable|"
            r"no route to host|EOF|broken pipe|dial tcp|use of closed|temporary failure",
            "registry_unreachable",
        ),
        (
            r"error parsing HTTP|invalid character|unexpected end of JSON|malformed|unsupported protocol|"
            r"unexpected HTTP status: [23]\d\d",
            "registry_garbage",
        ),
        (r"manifest unknown", "manifest_missing"),
    )
)


def fault(code: str, message: str, *, step: str = "push", retry_after_seconds: float = 0.0) -> StepFailed:
    """The error of this code, with its advice."""
    again, advice = ADVICE[code]
    return StepFailed(
        message, code=code, again=again, advice=advice, step=step, retry_after_seconds=retry_after_seconds
    )


def from_text(message: str, host: str) -> StepFailed:
    """A push that the engine says has failed."""
    text = " ".join(message.split())[:MAX_TEXT] or "the push failed without a message"
    for pattern, code in _TABLE:
        if pattern.search(text):
            return fault(code, f"{host}: {text}")
    return StepFailed(
        f"{host}: {text}",
        code="push_failed",
        again=False,
        step="push",
        advice="see the engine's and the registry's log",
    )


def from_answer(status: int, headers: Mapping[str, str], body: bytes, what: str, host: str) -> StepFailed:
    """A registry's refusal. `what` is what was tried, e.g. `PUT of team/app:1`."""
    codes, said = errors_in(body)
    text = f"{host}: {what}: {status} {said}".rstrip()
    wait = retry_after(headers.get("retry-after", ""), datetime.now(UTC))
    if status == 401:
        return fault("registry_unauthorized", text)
    if status == 429 or "TOOMANYREQUESTS" in codes:
        return fault("registry_limited", text, retry_after_seconds=wait)
    if status >= 500:
        return fault("registry_failed", text, retry_after_seconds=wait)
    # Each registry has its own status for this: 400 (ECR), 403, 409 (GitLab), 412 (Harbor), 405.
    if re.search(_IMMUTABLE, said, re.IGNORECASE) or status in (409, 412):
        return fault("tag_immutable", text)
    if status == 403 or "DENIED" in codes:
        return fault("registry_denied", text)
    if "NAME_UNKNOWN" in codes:
        return fault("repository_missing", text)
    if status == 404:
        return fault("manifest_missing" if "MANIFEST_UNKNOWN" in codes else "registry_garbage", text)
    if status >= 400 and not codes:
        return fault("registry_garbage", text)
    return fault("registry_refused", text)


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct):
    errors: list[_Error] = []


_decode = msgspec.json.Decoder(_Errors).decode


def errors_in(body: bytes) -> tuple[frozenset[str], str]:
    """The codes in an answer (OCI distribution specification, "Error Codes"), and what it says for people."""
    try:
        found = _decode(body).errors
    except (msgspec.DecodeError, UnicodeDecodeError):
        return frozenset(), _plain(body)
    said = "; ".join(f"{each.code}: {each.message}".strip(": ") for each in found)
    return frozenset(each.code.upper() for each in found), said[:MAX_TEXT]


def _plain(body: bytes) -> str:
    text = body[: 4 * MAX_TEXT].decode("utf-8", "replace")
    text = re.sub(r"<[^>]*>", " ", text)
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:200]


def retry_after(value: str, now: datetime) -> float:
    """Seconds that a `Retry-After` header asks for (RFC 9110, section 10.2.3); 0 for none or nonsense.

    >>> retry_after("7", datetime(2026, 1, 1, tzinfo=UTC)), retry_after("soon", datetime(2026, 1, 1, tzinfo=UTC))
    (7.0, 0.0)
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), MAX_RETRY_AFTER_SECONDS)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0.0
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return min(max(0.0, (when - now).total_seconds()), MAX_RETRY_AFTER_SECONDS)
