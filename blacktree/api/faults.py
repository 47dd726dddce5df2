"""The one table from our errors to what the outside sees: JSON-RPC error objects and HTTP problems."""

from http import HTTPStatus
from typing import Any

import msgspec

from blacktree.errors import (
    BadRequest,
    BlacktreeError,
    Broken,
    Conflict,
    NotAllowed,
    NotFound,
    TooLarge,
    Unavailable,
)

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
NO_SUCH_METHOD = -32601
INVALID_PARAMS = -32602
INTERNAL = -32603
NOT_FOUND = -32001
CONFLICT = -32002
NOT_ALLOWED = -32003
UNAVAILABLE = -32004
TOO_LARGE = -32005

# Most special first: the first class that fits decides.
_TABLE: tuple[tuple[type[BlacktreeError], int, int], ...] = (
    (TooLarge, TOO_LARGE, 413),
    (BadRequest, INVALID_PARAMS, 422),
    (NotFound, NOT_FOUND, 404),
    (Conflict, CONFLICT, 409),
    (NotAllowed, NOT_ALLOWED, 403),
    (Unavailable, UNAVAILABLE, 503),
)
# Codes that say more than their class.
_BY_CODE = {
    "too_large": (TOO_LARGE, 413),
    "malformed": (INVALID_PARAMS, 400),
    "bad_query": (INVALID_PARAMS, 400),
    "unauthorized": (NOT_ALLOWED, 401),
    "signature_missing": (NOT_ALLOWED, 401),
    "signature_wrong": (NOT_ALLOWED, 401),
    "too_slow": (INVALID_PARAMS, 408),
    "bad_media_type": (INVALID_PARAMS, 415),
    "length_required": (INVALID_PARAMS, 411),
    "method_not_allowed": (INVALID_PARAMS, 405),
    "bad_range": (INVALID_PARAMS, 416),
    "bad_accept": (INVALID_PARAMS, 406),
    "upgrade_required": (INVALID_PARAMS, 426),
    "rate_limited": (UNAVAILABLE, 429),
    # Not the request is wrong, but what lies on the orchestrator's machine.
    "secrets_key": (CONFLICT, 409),
    "secrets_key_file": (CONFLICT, 409),
    "invalid_key": (CONFLICT, 409),
}


def numbers(error: BlacktreeError) -> tuple[int, int]:
    """The JSON-RPC code and the HTTP status of an error."""
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    for kind, rpc, status in _TABLE:
        if isinstance(error, kind):
            return rpc, status
    return INTERNAL, 500


def details(error: BlacktreeError) -> dict[str, Any]:
    """What a program may want to know beside the message: code, advice, path, retry_after."""
    found: dict[str, Any] = {"code": error.code}
    if error.advice:
        found["advice"] = error.advice
    for name in ("path", "retry_after"):
        if error.data.get(name):
            found[name] = error.data[name]
    return found


def rpc_error(error: BlacktreeError) -> dict[str, Any]:
    """The `error` member of a JSON-RPC answer."""
    return {"code": numbers(error)[0], "message": error.message, "data": details(error)}


def problem(error: BlacktreeError) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an HTTP answer, shaped as RFC 9457's problem details."""
    status = numbers(error)[1]
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error.message,
        **details(error),
    }
    headers = {"content-type": "application/problem+json", "cache-control": "no-store"}
    if status in (503, 429):
        headers["retry-after"] = str(max(1, round(error.data.get("retry_after", 5))))
    if status == 401:
        headers["www-authenticate"] = 'Bearer realm="blacktree"'
    return status, headers, msgspec.json.encode(body)


def unexpected() -> Broken:
    """What is told about an error that nobody foresaw; the log has the rest."""
    return Broken("something went wrong here", code="internal", advice="the orchestrator's log says more")
