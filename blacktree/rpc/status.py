"""gRPC status ⇄ `BlacktreeError`, one table each way; code, message, advice and again ride along as JSON.

The numbers are those of the gRPC specification (statuscodes.md). Nothing here knows the library that carries them.
"""

from typing import Any

import msgspec
import structlog

from blacktree.errors import (
    BadRequest,
    BlacktreeError,
    Broken,
    BrokerLost,
    Conflict,
    EngineLost,
    NotAllowed,
    NotFound,
    PeerLost,
    StepFailed,
    StorageFailed,
    TooLarge,
    Unavailable,
    WorkerLost,
)

DETAILS_KEY = "blacktree-error-bin"
MAX_MESSAGE = 2000
MAX_DETAILS_BYTES = 8192

OK = 0
CANCELLED = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
PERMISSION_DENIED = 7
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
ABORTED = 10
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
UNAUTHENTICATED = 16

# The first match counts: children stand above their parents.
_OUT: list[tuple[type[BlacktreeError], int]] = [
    (TooLarge, RESOURCE_EXHAUSTED),
    (BadRequest, INVALID_ARGUMENT),
    (NotFound, NOT_FOUND),
    (Conflict, ABORTED),
    (NotAllowed, PERMISSION_DENIED),
    (Unavailable, UNAVAILABLE),
    (StepFailed, FAILED_PRECONDITION),
]
# What a status means that brings no details of ours, e.g. from a proxy or another program on that port.
_IN: dict[int, type[BlacktreeError]] = {
    INVALID_ARGUMENT: BadRequest,
    NOT_FOUND: NotFound,
    PERMISSION_DENIED: NotAllowed,
    RESOURCE_EXHAUSTED: TooLarge,
    ABORTED: Conflict,
    FAILED_PRECONDITION: StepFailed,
    UNIMPLEMENTED: NotAllowed,
    UNAUTHENTICATED: NotAllowed,
    CANCELLED: PeerLost,
    DEADLINE_EXCEEDED: PeerLost,
}
# The kinds that cross by name, so that the other side raises the same.
_KINDS: dict[str, type[BlacktreeError]] = {
    kind.__name__: kind
    for kind in (
        *(kind for kind, _ in _OUT),
        BrokerLost,
        EngineLost,
        PeerLost,
        StorageFailed,
        WorkerLost,
    )
}

log = structlog.get_logger()


class _Details(msgspec.Struct, omit_defaults=True):
    """What rides along. A name that a later version adds is ignored here."""

    kind: str
    code: str
    message: str
    advice: str = ""
    again: bool = False
    path: str = ""
    retry_after: float = 5.0


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Details).decode


def to_status(error: BaseException) -> tuple[int, str, bytes]:
    """Status, message and details of what a handler raised.

    What is not an error for the caller (`Broken`, anything foreign) is logged with its traceback here and masked.
    """
    if isinstance(error, BlacktreeError) and not isinstance(error, Broken):
        if error.code == "unauthenticated":
            return UNAUTHENTICATED, _clip(error.message), _details(error)
        for kind, status in _OUT:
            if isinstance(error, kind):
                return status, _clip(error.message), _details(error)
    log.error("rpc handler failed", exc_info=error)
    masked = Unavailable("the other side met an internal error; its log says more", code="internal", again=True)
    return INTERNAL, masked.message, _details(masked)


def _clip(message: str, limit: int = MAX_MESSAGE) -> str:
    return message if len(message) <= limit else message[: limit - 1] + "…"


def _details(error: BlacktreeError) -> bytes:
    kind = next((name for name in (each.__name__ for each in type(error).__mro__) if name in _KINDS), "Unavailable")
    details = _Details(
        kind=kind,
        code=_clip(error.code, 64),
        message=_clip(error.message),
        advice=_clip(error.advice),
        again=error.again,
        path=_clip(str(error.data.get("path", "")), 256),
    )
    if isinstance(error, Unavailable):
        details.retry_after = error.retry_after_seconds
    encoded = _encode(details)
    if len(encoded) > MAX_DETAILS_BYTES:  # four bytes a character, six when escaped
        details.message, details.advice, details.path = details.message[:400], details.advice[:400], ""
        encoded = _encode(details)
    return encoded


def from_status(status: int, message: str, details: bytes | None) -> BlacktreeError:
    """The error that a status stands for. Total: whatever the other side wrote there becomes one of ours."""
    if details is not None and len(details) <= MAX_DETAILS_BYTES:
        try:
            return _rebuild(_decode(details))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # not ours
    kind = _IN.get(status, Unavailable)
    said = _clip(message) or f"the other side answered with gRPC status {status}"
    if status == UNIMPLEMENTED:
        advice = "is this address a Blacktree daemon of the same version, and of the right kind?"
        return NotAllowed(said, code="not_blacktree", advice=advice)
    return kind(said)


def _rebuild(details: _Details) -> BlacktreeError:
    kind: type[Any] = _KINDS.get(details.kind, Unavailable)
    common: dict[str, Any] = {"code": details.code, "advice": details.advice}
    if issubclass(kind, BadRequest):
        error: BlacktreeError = kind(details.message, path=details.path, **common)
    elif issubclass(kind, Unavailable):
        error = kind(details.message, again=details.again, retry_after_seconds=details.retry_after, **common)
    else:
        error = kind(details.message, again=details.again, **common)
    return error


def peer_lost(address: str, error: BaseException, *, advice: str = "") -> PeerLost:
    """What a transport error means: nobody answered, and nothing is known of what arrived."""
    why = (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
    return PeerLost(f"no answer from {address}: {_clip(why, 300)}", advice=advice)
