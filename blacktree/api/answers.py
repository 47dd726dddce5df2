"""The few forms of an HTTP answer."""

import hashlib
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from blacktree.api.faults import problem
from blacktree.api.negotiation import compressed, gzip_tag, has_tag, takes_gzip, worth_it
from blacktree.errors import BlacktreeError


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(value),
        status_code=status,
        headers={"content-type": "application/json", **(headers or {})},
    )


def digest_tag(body: bytes) -> str:
    """A strong ETag of what is told."""
    return f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'


async def events_answer(request: Request, body: bytes, tag: str, headers: dict[str, str]) -> Response:
    """A page of events, which never change: named by a strong ETag, and compressed for who takes that."""
    packed = worth_it(body) and takes_gzip(request.headers)
    tag = gzip_tag(tag) if packed else tag
    headers = {
        "content-type": "application/json",
        "etag": tag,
        "vary": "Accept-Encoding",
        "cache-control": "private, no-cache",
        **headers,
    }
    if has_tag(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    if packed:
        return Response(await compressed(body), headers=headers | {"content-encoding": "gzip"})
    return Response(body, headers=headers)


def page(content: bytes, policy: str, status: int = 200) -> Response:
    headers = {"content-type": "text/html; charset=utf-8", "content-security-policy": policy}
    return Response(content, status_code=status, headers=headers)


def refusal(error: BlacktreeError, extra: dict[str, str] | None = None) -> Response:
    status, headers, body = problem(error)
    return Response(body, status_code=status, headers=headers | (extra or {}))
