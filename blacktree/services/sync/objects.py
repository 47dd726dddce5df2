"""Objects of a mirror as streams: what a tree lists, and what blobs contain."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import trio

from blacktree.concurrency.process import single_error
from blacktree.errors import StepFailed
from blacktree.services.sync.git import Git
from blacktree.services.sync.mirrors import Corrupt

CHUNK_BYTES = 64 * 1024
_LISTED = re.compile(rb"(\d{6}) (\w+) ([0-9a-f]+) +(\d+|-)\t(.+)\Z", re.DOTALL)


async def list_tree(git: Git, mirror: Path, tree: str) -> AsyncGenerator[list[tuple[int, str, int, bytes]], None]:
    """Everything below a tree in batches of `(mode, object id, size, path)`; to be closed by its reader.

    Raises `Corrupt` if objects are missing.
    """
    async with git.open(mirror, "ls-tree", "-r", "-z", "-l", "--full-tree", tree) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        rest = b""
        async for chunk in process.stdout:
            *records, rest = (rest + bytes(chunk)).split(b"\0")
            batch = []
            for record in records:
                match = _LISTED.match(record)
                if match is None:
                    raise Corrupt("a tree with an unreadable entry")
                mode, _, digest, size, path = match.groups()
                batch.append((int(mode, 8), digest.decode(), 0 if size == b"-" else int(size), path))
            yield batch
        said = b"".join([bytes(chunk) async for chunk in process.stderr])
        if await process.wait() != 0:
            raise Corrupt(said.decode("utf-8", "replace").strip() or "a tree that cannot be listed")


@asynccontextmanager
async def read_blobs(
    git: Git, mirrors: Sequence[Path], digests: Collection[str]
) -> AsyncIterator[AsyncIterator[tuple[int, bytes]]]:
    """The contents of blobs in order, as `(position, chunk)`; at most 64 KiB a chunk, an empty blob gives one b"".

    One git serves all: `mirrors` beyond the first are seen by it as alternates. Raises `Corrupt` for a missing blob.
    """
    async with git.open(mirrors[0], "cat-file", "--batch", "--buffer", stdin=True, alternates=mirrors[1:]) as process:
        with single_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_ask, process.stdin, digests)
                nursery.start_soon(_drop, process.stderr)
                async with aclosing(_answers(process.stdout, len(digests))) as answers:
                    yield answers
                nursery.cancel_scope.cancel()


async def _ask(stdin: trio.abc.SendStream | None, digests: Iterable[str]) -> None:
    assert stdin is not None
    asked: list[str] = []
    try:
        for digest in digests:
            asked.append(digest)
            if len(asked) == 1000:
                await stdin.send_all(("\n".join(asked) + "\n").encode())
                asked.clear()
        if asked:
            await stdin.send_all(("\n".join(asked) + "\n").encode())
        await stdin.aclose()
    except trio.BrokenResourceError:
        pass  # the reader sees the end of the answers


async def _drop(stderr: trio.abc.ReceiveStream | None) -> None:
    assert stderr is not None
    async for _ in stderr:
        pass


async def _answers(stdout: trio.abc.ReceiveStream | None, count: int) -> AsyncGenerator[tuple[int, bytes], None]:
    assert stdout is not None
    data = b""
    at = 0
    for position in range(count):
        while (end := data.find(b"\n", at)) < 0:
            more = bytes(await stdout.receive_some(CHUNK_BYTES))
            if not more:
                raise Corrupt("git ended before it had given every file")
            data, at = data[at:] + more, 0
        head = data[at:end].split(b" ")
        if len(head) != 3 or head[1] != b"blob":
            raise Corrupt(data[at:end].decode("utf-8", "replace"))
        left = int(head[2])
        at = end + 1
        if left == 0:
            yield position, b""
        while left:
            if at == len(data):
                data, at = bytes(await stdout.receive_some(CHUNK_BYTES)), 0
                if not data:
                    raise Corrupt("git ended in the middle of a file")
            chunk = data[at : at + min(left, CHUNK_BYTES)]
            at += len(chunk)
            left -= len(chunk)
            yield position, chunk
        at += 1  # a newline ends each content; it may be in the next chunk
        if at > len(data):
            at -= len(data)
            data = bytes(await stdout.receive_some(CHUNK_BYTES))
            if not data:
                raise Corrupt("git ended in the middle of a file")


async def read_blob(git: Git, mirrors: Sequence[Path], digest: str, *, maximum: int) -> bytes:
    """One small blob. Raises `StepFailed` (code `file_too_large`) over `maximum` bytes."""
    content = bytearray()
    async with read_blobs(git, mirrors, [digest]) as chunks:
        async for _, chunk in chunks:
            content += chunk
            if len(content) > maximum:
                raise StepFailed(f"a file that must be small has more than {maximum} bytes", code="file_too_large")
    return bytes(content)
