"""Cross-origin requests (the Fetch standard): off, unless origins are configured; never with cookies."""

from collections.abc import Mapping, Sequence

_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_TAKEN = b"Authorization, Content-Type, Idempotency-Key, If-None-Match, If-Range, Range"
_SHOWN = b"Blacktree-End-Seq, Content-Range, ETag, Location, Retry-After"
_API = "/api/"


class Cors:
    """Pages of these origins may use the API by a token that they hold; `*` stands for every page.

    A cookie is not asked for and not believed: whoever uses the door by one must come from the door's own pages.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    def permits(self, origin: str | None) -> bool:
        """Whether pages of this origin may."""
        return origin is not None and (self._any or origin.lower() in self._origins)

    def headers(self, path: str, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        """What an answer says to the browser of such a page; nothing to any other."""
        if not self._origins or not path.startswith(_API):
            return []
        varies = (b"vary", b"Origin")
        origin = headers.get("origin")
        if origin is None or not self.permits(origin):
            return [varies]
        allowed = (b"access-control-allow-origin", origin.encode("latin-1"))
        return [varies, allowed, (b"access-control-expose-headers", _SHOWN)]

    def preflight(self, method: str, path: str, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]] | None:
        """The headers of the answer to a browser's question before a request; None if this is no such question."""
        asks = method == "OPTIONS" and "access-control-request-method" in headers
        if not asks or not path.startswith(_API) or not self.permits(headers.get("origin")):
            return None
        return [
            *self.headers(path, headers),
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", _TAKEN),
            (b"access-control-max-age", b"600"),
        ]
