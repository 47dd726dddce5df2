"""The few forms of an HTTP answer."""

from typing import Any

import msgspec
from starlette.responses import Response

from blacktree.api.faults import problem
from blacktree.errors import BlacktreeError


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(value),
        status_code=status,
        headers={"content-type": "application/json", **(headers or {})},
    )


def page(content: bytes, status: int = 200) -> Response:
    return Response(content, status_code=status, headers={"content-type": "text/html; charset=utf-8"})


def refusal(error: BlacktreeError, extra: dict[str, str] | None = None) -> Response:
    status, headers, body = problem(error)
    return Response(body, status_code=status, headers=headers | (extra or {}))
