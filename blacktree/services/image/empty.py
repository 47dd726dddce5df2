"""A build context without a file, for workers whose steps fetch no source."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from blacktree.providers.base import Entry

# Two empty blocks end a tar stream (POSIX pax).
END_OF_ARCHIVE = bytes(1024)

_NO_FILES: tuple[tuple[Entry, bytes], ...] = ()


class EmptyContext:
    """`Context` with nothing in it: an engine misses its Dockerfile, a scripted provider does not care."""

    key = "empty"

    async def entries(self) -> list[Entry]:
        return []

    @asynccontextmanager
    async def read(self, entries: Collection[Entry]) -> AsyncIterator[AsyncIterator[tuple[Entry, bytes]]]:
        yield _nothing()

    @asynccontextmanager
    async def tar(self) -> AsyncIterator[AsyncIterator[bytes]]:
        yield _archive()


async def _nothing() -> AsyncIterator[tuple[Entry, bytes]]:
    for none in _NO_FILES:
        yield none


async def _archive() -> AsyncIterator[bytes]:
    yield END_OF_ARCHIVE
