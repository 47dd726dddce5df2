"""What a client takes: kinds of content and codings (RFC 9110, section 12.5), and validators it holds (section 13)."""

import zlib
from collections.abc import AsyncIterator, Mapping
from functools import partial

from blacktree.concurrency.threads import in_loose_thread
from blacktree.errors import BadRequest

_GZIP = 16 + zlib.MAX_WBITS
# Below this the head of a gzip file and the work are not worth it.
_LEAST_BYTES = 1024
_INLINE_BYTES = 32 * 1024


def check_accept(accept: str | None, media: str) -> None:
    """Raises `BadRequest` (code `bad_accept`) if the answer's kind is not among those that are taken."""
    if accept is None or accept in ("*/*", media) or media == "*/*":
        return
    wanted = _weights(accept)
    kinds = (media, media.partition("/")[0] + "/*", "*/*")
    if any(wanted.get(kind, 0.0) > 0 for kind in kinds):
        return
    raise BadRequest(f"this is told as {media} alone", code="bad_accept", advice=f"send `Accept: {media}`")


def takes_gzip(headers: Mapping[str, str]) -> bool:
    """Whether the answer may come compressed."""
    weights = _weights(headers.get("accept-encoding", ""))
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def has_tag(value: str | None, tag: str) -> bool:
    """Whether an `If-None-Match` names this entity tag (or any); the weak form of it will do."""
    if value is None:
        return False
    return value.strip() == "*" or any(each.strip().removeprefix("W/") == tag for each in value.split(","))


def gzip_tag(tag: str) -> str:
    """The tag of the same content, compressed: strong tags tell representations apart."""
    return tag[:-1] + '-gzip"'


async def compressed(body: bytes) -> bytes:
    """The whole body as a gzip file."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)

    def pack() -> bytes:
        return packer.compress(body) + packer.flush()

    return pack() if len(body) <= _INLINE_BYTES else await in_loose_thread(pack)


def worth_it(body: bytes) -> bool:
    """Whether a body is large enough to be compressed."""
    return len(body) >= _LEAST_BYTES


class Compressed:
    """A stream of pieces as one gzip file, with no more than a piece in memory. Work is done in threads."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
        self._over = False

    def __aiter__(self) -> "Compressed":
        return self

    async def __anext__(self) -> bytes:
        while not self._over:
            try:
                piece = await self._pieces.__anext__()
            except StopAsyncIteration:
                self._over = True
                return self._packer.flush()
            packed = await in_loose_thread(partial(self._packer.compress, piece))
            if packed:
                return packed
        raise StopAsyncIteration


def _weights(header: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in header.lower().split(","):
        name, *parameters = [each.strip() for each in part.split(";")]
        weight = 1.0
        for each in parameters:
            key, _, value = each.partition("=")
            if key.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        if name:
            found[name] = max(weight, found.get(name, 0.0))
    return found
