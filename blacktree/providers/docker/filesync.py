"""FileSync: the build context as BuildKit asks for it, so that only changed files cross."""

import posixpath
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from urllib.parse import unquote

import msgspec
import trio

from blacktree.providers.base import Context, Entry
from blacktree.providers.docker.generated import buildkit_pb2 as wire
from blacktree.providers.docker.grpc import UNKNOWN, Call, CallFailed, PeerGone
from blacktree.providers.docker.patterns import Patterns, followed
from blacktree.providers.docker.scope import open_tasks

# Go's os.FileMode bits, which fsutil's Stat carries.
_DIRECTORY = 1 << 31
_SYMLINK = 1 << 27
_SECOND = 1_577_836_800  # 2020-01-01T00:00:00Z
_BATCH = 1024
_STATS_TOGETHER = 64


def modified(digest: str) -> int:
    """The time of change, nanoseconds, that stands for a content.

    The engine takes a file for unchanged when size, mode and time are equal; git knows no times. A time made from the
    content's digest changes exactly when the content does, also between two files of equal size, and is the same for
    all commits that share the file. The second is fixed, since image layers keep whole seconds: what is built stays
    equal too.
    """
    return _SECOND * 1_000_000_000 + int.from_bytes(sha256(digest.encode()).digest()[:8]) % 1_000_000_000


class Wanted(msgspec.Struct, frozen=True):
    """What one call asks for: the header fields of DiffCopy."""

    exclude: Sequence[str] = ()
    include: Sequence[str] = ()
    follow: Sequence[str] = ()


def wanted(headers: Mapping[str, list[str]]) -> Wanted:
    """Read the header fields. Newer engines escape values outside ASCII and say so with `NAME-encoded: 1`."""

    def values(name: str) -> list[str]:
        found = headers.get(name, [])
        return [unquote(each) for each in found] if headers.get(f"{name}-encoded") == ["1"] else found

    return Wanted(exclude=values("exclude-patterns"), include=values("include-patterns"), follow=values("followpaths"))


def select(entries: Sequence[Entry], links: Mapping[str, str], ask: Wanted) -> Iterator[tuple[str, Entry | None]]:
    """The files to show, in order, each directory (None) before what is in it. `links`: symlink to target."""
    exclude = Patterns(ask.exclude)
    includes = [*ask.include, *followed(ask.follow, links)] if ask.follow else list(ask.include)
    include = Patterns(includes) if includes else None

    def shown(path: str) -> bool:
        return (include is None or include.match(path)) and not (exclude and exclude.match(path))

    known: dict[str, bool] = {"": True}
    for entry in entries:
        missing: list[str] = []
        parent = posixpath.dirname(entry.path)
        while parent not in known:
            missing.append(parent)
            parent = posixpath.dirname(parent)
        for directory in reversed(missing):
            # Its parents may have been hidden; they are shown for its sake, as Docker does for `!dir/file`.
            known[directory] = False
            if shown(directory):
                yield from _open(directory, known)
        if shown(entry.path):
            yield from _open(posixpath.dirname(entry.path), known)
            yield entry.path, entry


def _open(directory: str, known: dict[str, bool]) -> Iterator[tuple[str, None]]:
    hidden: list[str] = []
    while not known.get(directory, False):
        hidden.append(directory)
        directory = posixpath.dirname(directory)
    for each in reversed(hidden):
        known[each] = True
        yield each, None


def path_key(path: str) -> list[bytes]:
    """fsutil's order: by components, as bytes."""
    return [part.encode("utf-8", "surrogateescape") for part in path.split("/")]


def stat_of(path: str, entry: Entry | None, target: str = "") -> wire.Stat:
    """A file, symlink or (no entry) directory as fsutil describes it. Owners are root, as BuildKit makes them."""
    name = path.encode("utf-8", "surrogateescape")
    if entry is None:
        return wire.Stat(path=name, mode=_DIRECTORY | 0o755, modified=_SECOND * 1_000_000_000)
    when = modified(entry.digest)
    if entry.mode & 0o170000 == 0o120000:
        return wire.Stat(
            path=name, mode=_SYMLINK | 0o777, linkname=target.encode("utf-8", "surrogateescape"), modified=when
        )
    return wire.Stat(path=name, mode=entry.mode & 0o777, size=entry.size, modified=when)


async def link_targets(context: Context, entries: Sequence[Entry]) -> dict[str, str]:
    """Each symlink of the context and its target."""
    links = [entry for entry in entries if entry.mode & 0o170000 == 0o120000]
    found: dict[str, bytes] = {entry.path: b"" for entry in links}
    if links:
        async with context.read(links) as chunks:
            async for entry, chunk in chunks:
                found[entry.path] += chunk
    return {path: target.decode("utf-8", "surrogateescape") for path, target in found.items()}


class FileSync:
    """Answers DiffCopy calls over one context. `sent` counts the files that crossed."""

    def __init__(self, context: Context, entries: Sequence[Entry]) -> None:
        self._context = context
        self._entries = sorted(entries, key=lambda entry: path_key(entry.path))
        self._links: dict[str, str] | None = None
        self.sent = 0

    async def serve(self, call: Call) -> None:
        """One DiffCopy call: show what there is, send what is asked for. Raises `CallFailed`."""
        if self._links is None:
            self._links = await link_targets(self._context, self._entries)
        try:
            shown = list(select(self._entries, self._links, wanted(call.headers)))
        except ValueError as error:
            raise CallFailed(UNKNOWN, str(error)) from None
        await _Copy(self, self._context, call, shown, self._links).run()


class _Copy:
    def __init__(
        self,
        owner: FileSync,
        context: Context,
        call: Call,
        shown: list[tuple[str, Entry | None]],
        links: Mapping[str, str],
    ) -> None:
        self._owner = owner
        self._context = context
        self._call = call
        self._shown = shown
        self._links = links
        self._asked: deque[int] = deque()
        self._more = trio.Event()

    async def run(self) -> None:
        async with open_tasks() as tasks:
            tasks.start_soon(self._show)
            tasks.start_soon(self._give)
            while (message := await self._call.receive()) is not None:
                packet = wire.Packet.FromString(message)
                if packet.type == wire.Packet.REQUEST:
                    if packet.id >= len(self._shown):
                        raise CallFailed(UNKNOWN, f"no file has the number {packet.id}")
                    self._asked.append(packet.id)
                    self._more.set()
                elif packet.type == wire.Packet.FINISH:
                    await self._call.send(wire.Packet(type=wire.Packet.FINISH).SerializeToString())
                    break
                elif packet.type == wire.Packet.ERROR:
                    raise PeerGone
            tasks.cancel_scope.cancel()

    async def _show(self) -> None:
        messages: list[bytes] = []
        for path, entry in self._shown:
            stat = stat_of(path, entry, self._links.get(path, ""))
            messages.append(wire.Packet(type=wire.Packet.STAT, stat=stat).SerializeToString())
            if len(messages) == _STATS_TOGETHER:
                await self._call.send(*messages)
                messages.clear()
        await self._call.send(*messages, wire.Packet(type=wire.Packet.STAT).SerializeToString())

    async def _give(self) -> None:
        while True:
            while not self._asked:
                self._more = trio.Event()
                await self._more.wait()
            numbers = [self._asked.popleft() for _ in range(min(_BATCH, len(self._asked)))]
            await self._give_these(numbers)

    async def _give_these(self, numbers: list[int]) -> None:
        entries: dict[str, tuple[int, Entry]] = {}
        for number in numbers:
            path, entry = self._shown[number]
            if entry is None or path in self._links:
                raise CallFailed(UNKNOWN, f"`{path}` has no content")
            entries[path] = (number, entry)
        open_number = -1
        async with self._context.read([entry for _, entry in entries.values()]) as chunks:
            async for entry, chunk in chunks:
                number = entries[entry.path][0]
                if open_number not in (-1, number):
                    await self._done(open_number)
                open_number = number
                if chunk:
                    await self._call.send(wire.Packet(type=wire.Packet.DATA, id=number, data=chunk).SerializeToString())
        if open_number != -1:
            await self._done(open_number)

    async def _done(self, number: int) -> None:
        self._owner.sent += 1
        await self._call.send(wire.Packet(type=wire.Packet.DATA, id=number).SerializeToString())
