"""`Poster`: what is said to the outside by HTTP, to forges and to targets of notifications, goes through here."""

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
import trio

from blacktree.concurrency.threads import in_thread

if TYPE_CHECKING:
    from blacktree.orchestrator.httppost import HttpPost


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer; `headers` by lower-case name, `text` its beginning."""

    status: int
    headers: dict[str, str]
    text: str


class Poster:
    """A client that is made when it is first needed: that takes a while, and many farms never need it."""

    def __init__(self) -> None:
        self._client: HttpPost | None = None
        self._opening = trio.Lock()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """See `HttpPost.post`. Raises `Later` or `Refused`."""
        return await (await self._opened()).post(url, headers, body)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _opened(self) -> "HttpPost":
        async with self._opening:
            if self._client is None:
                from blacktree.orchestrator.httppost import HttpPost

                self._client = HttpPost(await in_thread(ssl.create_default_context))
            return self._client
