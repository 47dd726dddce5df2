"""In front of every route: nobody gets past without being known, and every answer bears the same safe headers."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette

from blacktree.api import pages
from blacktree.api.answers import page, refusal
from blacktree.api.auth import Auth
from blacktree.api.exchange import WEBHOOKS_PATH, Message
from blacktree.api.metrics import Tally
from blacktree.api.table import ROUTES
from blacktree.errors import NotAllowed
from blacktree.role import Role

_OPEN = frozenset(each.http.path for each in ROUTES.values() if each.http and each.role is Role.NONE)


class Gate:
    """Nobody reaches a route, or has a body read, without being let in; every answer bears the same safe headers."""

    def __init__(self, app: Starlette, auth: Auth, tally: Tally) -> None:
        self._app = app
        self._auth = auth
        self._tally = tally

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        headers = plain_headers(scope["headers"])
        actor = self._auth.actor(headers, scope["server"][1])
        scope["state"]["actor"] = actor

        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._tally.answered(message["status"])
                present = {name for name, _ in message["headers"]}
                extra = [(name, value) for name, value in _SAFE if name not in present]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        try:
            # Whoever sends a webhook proves it by a signature (api/webhooks.py).
            signed = scope["method"] == "POST" and scope["path"].startswith(WEBHOOKS_PATH)
            if actor is None and scope["path"] not in _OPEN and not signed:
                if scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
                    await page(pages.LOGIN, status=401)(scope, receive, safely)
                    return
                raise unauthorized()
            if scope["method"] not in ("GET", "HEAD"):
                self._auth.check_place(headers, actor)
        except NotAllowed as error:
            await refusal(error)(scope, receive, safely)
            return
        await self._app(scope, receive, safely)


_SAFE = [
    (b"x-content-type-options", b"nosniff"),
    # Not "no-referrer": under that a browser calls the Origin of a form "null".
    (b"referrer-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", pages.POLICY.encode()),
]


def plain_headers(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by lower-case name; what comes twice is joined, so that a doubled token or Origin fits nothing."""
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in found:
            value = found[name] + ("; " if name == "cookie" else ", ") + value
        found[name] = value
    return found


def unauthorized() -> NotAllowed:
    """Nobody we know."""
    return NotAllowed(
        "this needs the farm's token",
        code="unauthorized",
        advice="send `Authorization: Bearer TOKEN`; the token is in STATE/token",
    )
