"""`HttpPost`: one request to somebody outside, its answer bounded in time and size."""

import ssl
from collections.abc import Mapping

import httpx
import trio

from blacktree.orchestrator.poster import Reply
from blacktree.orchestrator.statuswords import Later, Refused

ANSWER_SECONDS = 15.0
CLOSE_SECONDS = 1.0
MOST_ANSWER_BYTES = 64 * 1024


class HttpPost:
    """Keeps connections. A redirect is not followed: what is sent is for the address that was named, and no other."""

    def __init__(self, context: ssl.SSLContext) -> None:
        # Each lane sends one at a time; a place in a pool must not be waited for behind somebody slow.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        self._http = httpx.AsyncClient(verify=context, timeout=ANSWER_SECONDS, follow_redirects=False, limits=limits)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """The answer, whatever it says. Raises `Later` (there was none) or `Refused` (that is no address)."""
        try:
            with trio.fail_after(2 * ANSWER_SECONDS):
                request = self._http.build_request("POST", url, headers=dict(headers), content=body)
                request.stream = _Whole(body)
                answer = await self._http.send(request, stream=True)
                try:
                    text = await _beginning(answer)
                finally:
                    with trio.move_on_after(CLOSE_SECONDS, shield=True):
                        await answer.aclose()
        except trio.TooSlowError:
            raise Later("took too long to answer") from None
        except httpx.InvalidURL as error:
            raise Refused(f"{url} is no address: {error}") from None
        except httpx.HTTPError as error:
            raise Later(f"{type(error).__name__}: {error}") from None
        return Reply(status=answer.status_code, headers=dict(answer.headers), text=text)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


class _Whole(httpx.AsyncByteStream):
    """A request's body in one piece.

    httpx's own is an async generator, which a cancelled sending leaves to the garbage collector, half-way through.
    """

    def __init__(self, body: bytes) -> None:
        self._left = [body]

    def __aiter__(self) -> "_Whole":
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


async def _beginning(answer: httpx.Response) -> str:
    """What an answer says, as far as anybody reads it."""
    found = b""
    async for piece in answer.aiter_bytes(8192):
        found += piece
        if len(found) > MOST_ANSWER_BYTES:
            break
    return found[:MOST_ANSWER_BYTES].decode("utf-8", "replace")
