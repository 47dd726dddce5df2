"""Reading a request's body: bounded, of a kind that is understood."""

from starlette.requests import Request

from blacktree.errors import BadRequest, TooLarge


async def read_body(
    request: Request,
    kinds: tuple[str, ...],
    limit: int,
    *,
    required: bool = False,
    advice: str = "put what is large into the repository",
) -> bytes:
    """The whole body. Raises `TooLarge` before reading on, `BadRequest` for another kind of content or a coded one."""
    headers = request.headers
    if required and "content-length" not in headers and "transfer-encoding" not in headers:
        raise BadRequest("the request has no length", code="length_required")
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length[:20]) > limit:
        raise TooLarge(f"the body has {length[:20]} bytes, the limit is {limit}", advice=advice)
    if headers.get("content-encoding", "identity") != "identity":
        raise BadRequest("encoded bodies are not understood", code="bad_media_type")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if kind and kind not in kinds and (body or required):
        raise BadRequest(f"expected {kinds[0]}, not {kind[:100]}", code="bad_media_type")
    return body
