"""`ForgeClient`: one request to a forge's API, its answer bounded in time and size."""

import ssl

import httpx
import trio

from blacktree.orchestrator.forges.base import StatusCall
from blacktree.orchestrator.statuswords import Later, Refused, judge

ANSWER_SECONDS = 15.0
MOST_ANSWER_BYTES = 64 * 1024


class ForgeClient:
    """Keeps connections. A redirect is not followed: the token is for the host that was named."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._http = httpx.AsyncClient(verify=context, timeout=ANSWER_SECONDS, follow_redirects=False)

    async def post(self, call: StatusCall) -> None:
        """Returns once the forge has taken it. Raises `Later` or `Refused`."""
        try:
            with trio.fail_after(2 * ANSWER_SECONDS):
                async with self._http.stream("POST", call.url, headers=call.headers, json=call.body) as answer:
                    text = await _beginning(answer)
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


async def _beginning(answer: httpx.Response) -> str:
    """What an answer says, as far as anybody reads it."""
    found = b""
    async for piece in answer.aiter_bytes(8192):
        found += piece
        if len(found) > MOST_ANSWER_BYTES:
            break
    return found[:MOST_ANSWER_BYTES].decode("utf-8", "replace")
