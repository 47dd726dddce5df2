"""The viewer's files: read once, served with an ETag, under a policy that lets nothing else in."""

import base64
import hashlib
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
    """Every file of `api/viewer`, by name. Nothing is looked up by a path from outside."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, dict[str, str]]] = {}
        for item in files("blacktree.api").joinpath("viewer").iterdir():
            kind = _KINDS.get(item.name[item.name.rfind(".") :])
            if kind is None:
                continue
            body, policy = item.read_bytes(), POLICY
            if item.name == _PAGE:
                boot = b"\n" + (files("blacktree.api") / "viewer" / _BOOT).read_bytes()
                body = body.replace(b"BOOT", boot)
                policy = _permitting(boot)
            self._files[item.name] = (
                body,
                {
                    "content-type": kind,
                    "content-security-policy": policy,
                    "etag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
                    # Ask every time: a page never runs with the scripts of an older farm.
                    "cache-control": "no-cache",
                },
            )

    def answer(self, name: str, request: Request) -> Response:
        """The file. Raises `NotFound`."""
        if name not in self._files:
            raise NotFound("there is nothing at this address")
        body, headers = self._files[name]
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers)


def _permitting(script: bytes) -> str:
    """The policy, and beside it this one script in the page itself (CSP 3, section 8.3: by its hash)."""
    proof = base64.b64encode(hashlib.sha256(script).digest()).decode()
    return POLICY.replace("script-src 'self'", f"script-src 'self' 'sha256-{proof}'")
