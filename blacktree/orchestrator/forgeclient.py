"""`ForgeClient`: one request to a forge's API, its answer bounded in time and size."""

import ssl

import httpx
import trio

from blacktree.orchestrator.forges.base import StatusCall
from blacktree.orchestrator.statuswords import Later, Refused, judge

ANSWER_SECONDS = 15.0
CLOSE_SECONDS = 1.0
MOST_ANSWER_BYTES = 64 * 1024


class ForgeClient:
    """Keeps connections. A redirect is not followed: the token is for the host that was named."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._http = httpx.AsyncClient(verify=context, timeout=ANSWER_SECONDS, follow_redirects=False)

    async def post(self, call: StatusCall) -> None:
        """Returns once the forge has taken it. Raises `Later` or `Refused`."""
        try:
            with trio.fail_after(2 * ANSWER_SECONDS):
                request = self._http.build_request("POST", call.url, headers=call.headers, json=call.body)
                request.stream = _Whole(request.content)
                answer = await self._http.send(request, stream=True)
                try:
                    text = await _beginning(answer)
                finally:
                    with trio.move_on_after(CLOSE_SECONDS, shield=True):
                        await answer.aclose()
        except trio.TooSlowError:
            raise Later("the forge took too long to answer") from None
        except httpx.InvalidURL as error:
            raise Refused(f"{call.url} is no address: {error}") from None
        except httpx.HTTPError as error:
            raise Later(f"{type(error).__name__}: {error}") from None
        judge(answer.status_code, answer.headers, text)

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
