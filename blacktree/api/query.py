"""What a request asks for beyond its path: parameters and ranges. What is not known is refused by name."""

import re

from starlette.requests import Request

from blacktree.api.messages import clamp
from blacktree.api.search import MOST_HITS, Sought
from blacktree.errors import BadRequest
from blacktree.job import JobState
from blacktree.strict import nearest

_RANGE = re.compile(r"bytes=(?P<first>\d{0,19})-(?P<last>\d{0,19})\Z")


def asked(request: Request) -> dict[str, list[str]]:
    """The parameters that the operation's entry in the table has. Raises `BadRequest` for any other."""
    known: tuple[str, ...] = request.state.operation.http.query.__struct_fields__
    found: dict[str, list[str]] = {name: [] for name in known}
    for name, value in request.query_params.multi_items():
        if name not in found:
            guess = nearest(name, list(known))
            advice = f"did you mean `{guess}`?" if guess else f"known: {', '.join(known) or 'none'}"
            raise BadRequest(f"unknown parameter `{name[:100]}`", path=name[:100], code="bad_query", advice=advice)
        if value:
            found[name].append(value)
    return found


def last_of(query: dict[str, list[str]], name: str) -> str:
    return query[name][-1] if query[name] else ""


def number(query: dict[str, list[str]], name: str, default: int) -> int:
    text = last_of(query, name)
    if not text:
        return default
    if not re.fullmatch(r"-?[0-9]{1,40}", text):
        raise BadRequest(f"`{name}` must be a whole number", path=name, code="bad_query")
    return int(text)


def sought(request: Request) -> Sought:
    """What `search` of a log is asked for."""
    query = asked(request)
    return Sought(
        text=last_of(query, "text"),
        errors=last_of(query, "errors") in ("1", "true"),
        step=last_of(query, "step"),
        attempt=number(query, "attempt", 0),
        from_seq=clamp(number(query, "from_seq", 1), 1),
        limit=clamp(number(query, "limit", MOST_HITS), 1, MOST_HITS),
    )


def idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= 256:
        raise BadRequest("the Idempotency-Key must have 1 to 256 characters", path="Idempotency-Key")
    return key


def state_named(name: str) -> JobState:
    try:
        return JobState(name)
    except ValueError:
        known = [state.value for state in JobState]
        guess = nearest(name, known)
        advice = f"did you mean `{guess}`?" if guess else f"known: {', '.join(known)}"
        raise BadRequest(f"no such state: {name[:100]!r}", path="state", code="bad_query", advice=advice) from None


def asked_range(request: Request, size: int, tag: str) -> tuple[int, int, int]:
    """First byte, last byte, status. RFC 9110, section 14: what is not understood is ignored, what cannot be is 416."""
    found = _RANGE.match(request.headers.get("range", ""))
    # With If-Range it wants the rest of what it holds: of something else the whole is the safe answer.
    stale = request.headers.get("if-range", tag) != tag
    if found is None or stale or found["first"] + found["last"] == "":
        return 0, size - 1, 200
    if found["first"] == "":
        first, last = max(0, size - int(found["last"])), size - 1
        satisfiable = int(found["last"]) > 0 and size > 0
    else:
        first, last = int(found["first"]), min(int(found["last"] or size - 1), size - 1)
        if found["last"] and int(found["last"]) < first:
            return 0, size - 1, 200
        satisfiable = first < size
    if not satisfiable:
        error = BadRequest(f"the log has {size} bytes", code="bad_range")
        error.data["size"] = size
        raise error
    return first, last, 206
