"""In front of every route: nobody gets past without being known, and every answer bears the same safe headers."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import Response

from blacktree.api import pages
from blacktree.api.access import unauthorized
from blacktree.api.answers import page, refusal
from blacktree.api.auth import Actor
from blacktree.api.exchange import WEBHOOKS_PATH, Gone, Message
from blacktree.api.metrics import Tally
from blacktree.api.reception import Reception
from blacktree.api.table import ROUTES
from blacktree.api.views import Views
from blacktree.errors import NotAllowed, Unavailable
from blacktree.role import Role

_OPEN = frozenset(each.http.path for each in ROUTES.values() if each.http and each.role is Role.NONE)

# Asked again and again, and answered in a word.
_PROBES = ("/healthz", "/readyz")


class Gate:
    """Nobody reaches a route, or has a body read, without being let in; every answer bears the same safe headers."""

    def __init__(self, views: Views, reception: Reception, tally: Tally) -> None:
        self._views = views
        self._reception = reception
        self._tally = tally

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        headers = plain_headers(scope["headers"])
        desk = self._reception
        actor: Actor | None = None

        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._tally.answered(message["status"])
                present = {name for name, _ in message["headers"]}
                extra = [(name, value) for name, value in _SAFE if name not in present]
                extra += desk.cors.headers(scope["path"], headers)
                message["headers"] = [*message["headers"], *extra]
            elif message.get("more_body") and actor is not None and not desk.auth.holds(actor):
                raise Gone("the token was revoked in the middle of an answer")
            await send(message)

        try:
            address, secure = desk.came(headers, scope["client"][0], scope["scheme"] == "https")
            scope["client"], scope["scheme"] = (address, 0), "https" if secure else "http"
            told = desk.cors.preflight(scope["method"], scope["path"], headers)
            if told is not None:
                await Response(status_code=204, headers=dict(_text(told)))(scope, receive, send)
                return
            scope["state"]["actor"] = actor = desk.known(headers, scope["server"][1], address)
            # Whoever sends a webhook proves it by a signature (api/webhooks.py).
            signed = scope["method"] == "POST" and scope["path"].startswith(WEBHOOKS_PATH)
            if actor is None and not signed and scope["path"] not in _PROBES:
                desk.limits.refused(address)
            if actor is None and scope["path"] not in _OPEN and not signed:
                if scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
                    await page(pages.LOGIN, pages.LOGIN_POLICY, 401)(scope, receive, safely)
                    return
                raise unauthorized()
            if scope["method"] not in ("GET", "HEAD"):
                foreign = desk.cors.permits(headers.get("origin"))
                desk.auth.check_place(headers, actor, secure=secure, foreign=foreign)
        except (NotAllowed, Unavailable) as error:
            await refusal(error)(scope, receive, safely)
            return
        await self._views.of(actor).app(scope, receive, safely)


def _text(headers: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


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
