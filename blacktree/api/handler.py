"""What answers a request."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

Handler = Callable[[Request], Awaitable[Response]]
"""Answers a request of one operation, which is at `request.state.operation`."""
Method = Callable[[bytes], Awaitable[bytes]]
"""Answers one websocket request: parameters as JSON in, the result as JSON out."""
