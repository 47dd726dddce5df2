"""A plain log as an HTTP answer: whole, compressed, or the range that was asked for, read piece by piece."""

from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from blacktree.api.negotiation import Compressed, gzip_tag, has_tag, takes_gzip
from blacktree.api.query import asked_range
from blacktree.errors import NotFound

_CHUNK_BYTES = 256 * 1024


class Readable(Protocol):
    """Where pieces of plain logs are."""

    async def read_text(self, name: str, offset: int, max_bytes: int, /) -> bytes: ...


def text_answer(request: Request, source: Readable, name: str, begin: int, end: int, *, log_id: str = "") -> Response:
    """The bytes from `begin` to `end` of this log, or the part of them that the request's `Range` names.

    A log only grows at its end (and may lose its beginning): where it begins and ends is its strong ETag. A range is
    never compressed: its bytes are those of the log.
    """
    size = end - begin
    tag = f'"{log_id}{begin:x}-{end:x}"'
    packed = takes_gzip(request.headers) and size > 0 and "range" not in request.headers
    own_tag = gzip_tag(tag) if packed else tag
    headers = {
        "content-type": "text/plain; charset=utf-8",
        "accept-ranges": "bytes",
        "vary": "Accept-Encoding",
        "etag": own_tag,
        # Kept by nobody but whoever may read it, and asked about every time.
        "cache-control": "private, no-cache",
    }
    known = request.headers.get("if-none-match")
    if has_tag(known, own_tag):
        return Response(status_code=304, headers=headers)
    if packed:
        if request.method == "HEAD":
            return Response(status_code=200, headers=headers | {"content-encoding": "gzip"})
        whole = Compressed(_Text(source, name, begin, end))
        return StreamingResponse(whole, headers=headers | {"content-encoding": "gzip"})
    first, last, status = asked_range(request, size, tag)
    headers["content-length"] = str(last - first + 1)
    if status == 206:
        headers["content-range"] = f"bytes {first}-{last}/{size}"
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    text = _Text(source, name, begin + first, begin + last + 1)
    return StreamingResponse(text, status_code=status, headers=headers)


class _Text:
    """A stretch of a log, piece by piece. No generator: a client that leaves would let it be collected half-way."""

    def __init__(self, source: Readable, name: str, offset: int, end: int) -> None:
        self._source = source
        self._name = name
        self._offset = offset
        self._end = end

    def __aiter__(self) -> "_Text":
        return self

    async def __anext__(self) -> bytes:
        if self._offset >= self._end:
            raise StopAsyncIteration
        most = min(_CHUNK_BYTES, self._end - self._offset)
        piece = (await self._source.read_text(self._name, self._offset, most))[:most]
        if not piece:
            # The length was promised; an early end must be seen as one.
            raise NotFound("the log is shorter than it was", code="log_gone")
        self._offset += len(piece)
        return piece
