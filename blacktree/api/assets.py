"""The viewer's files: read once, served under a policy that lets nothing else in."""

import base64
import hashlib
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from blacktree.errors import NotFound

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_PAGE = "index.html"
_BOOT = "boot.js"


class Assets:
    """Every file of `api/viewer`, by name. Nothing is looked up by a path from outside.

    `version` stands for the content of them all and is a part of every address but the page's: a browser keeps what it
    has, also of a page that came in part, and never runs the scripts of one farm beside those of another.
    """

    def __init__(self) -> None:
        bodies = dict(_bodies())
        self.version = hashlib.sha256(
            b"".join(b"%b\0%b\0" % (n.encode(), bodies[n]) for n in sorted(bodies))
        ).hexdigest()[:16]
        boot = b"\n" + bodies.pop(_BOOT)
        page = bodies.pop(_PAGE).replace(b"BOOT", boot).replace(b"VERSION", self.version.encode())
        self._page = (
            page,
            {
                "content-type": _KINDS[".html"],
                "content-security-policy": _permitting(boot),
                "etag": f'"{hashlib.sha256(page).hexdigest()[:32]}"',
                "cache-control": "no-cache",
            },
        )
        self._files = {
            name: (
                body,
                {
                    "content-type": _KINDS[name[name.rfind(".") :]],
                    "content-security-policy": POLICY,
                    "etag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
                    "cache-control": "private, max-age=31536000, immutable",
                },
            )
            for name, body in bodies.items()
        }

    def page(self, request: Request) -> Response:
        """The page that asks for all others."""
        return _answer(*self._page, request)

    def answer(self, version: str, name: str, request: Request) -> Response:
        """The file. Raises `NotFound`, also for one of another version."""
        if version != self.version or name not in self._files:
            raise NotFound("there is nothing at this address")
        return _answer(*self._files[name], request)


@cache
def _bodies() -> tuple[tuple[str, bytes], ...]:
    found = [item for item in files("blacktree.api").joinpath("viewer").iterdir() if item.is_file()]
    return tuple((item.name, item.read_bytes()) for item in found if item.name[item.name.rfind(".") :] in _KINDS)


def _answer(body: bytes, headers: dict[str, str], request: Request) -> Response:
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers)


def _permitting(script: bytes) -> str:
    """The policy, and beside it this one script in the page itself (CSP 3, section 8.3: by its hash)."""
    proof = base64.b64encode(hashlib.sha256(script).digest()).decode()
    return POLICY.replace("script-src 'self'", f"script-src 'self' 'sha256-{proof}'")
