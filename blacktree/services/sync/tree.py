"""`GitContext`: a build context straight out of mirrors, without a checkout."""

import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import trio

from blacktree.errors import StepFailed
from blacktree.providers.base import Entry
from blacktree.services.sync.git import Git
from blacktree.services.sync.mirrors import Corrupt, mark_broken
from blacktree.services.sync.objects import list_tree, read_blob, read_blobs
from blacktree.services.sync.paths import DIRECTORY, SUBMODULE, SYMLINK, Node, follow

_MAXIMUM_LINK = 4096
_MAXIMUM_DOCKERFILE = 4 << 20
_BLOCK = tarfile.BLOCKSIZE


class Graft(msgspec.Struct, frozen=True):
    """A commit in a mirror, and where it stands in the whole: `""` for the repository, a submodule's path else."""

    mirror: Path
    commit: str
    prefix: str = ""


class GitContext:
    """A commit's files below one directory, its submodules in their places. Immutable; reads as often as asked.

    `key` names the source for engines that keep files; `time` is the commit's (seconds), for tar headers.
    """

    def __init__(
        self, git: Git, grafts: Collection[Graft], directory: str, *, key: str, time: int, maximum_files: int
    ) -> None:
        self._git = git
        self._grafts = sorted(grafts, key=lambda graft: graft.prefix)
        self._mirrors = list(dict.fromkeys(graft.mirror for graft in self._grafts))
        self._directory = directory
        self._maximum_files = maximum_files
        self._entries: list[Entry] | None = None
        self.key = key
        self.time = time

    async def entries(self) -> list[Entry]:
        """Every file, by path components. Raises `StepFailed` (`context_too_large`, `unsafe_tree`) or `Corrupt`."""
        if self._entries is None:
            found: dict[str, Entry] = {}
            for graft in self._grafts:
                await self._list(graft, found)
            self._entries = sorted(found.values(), key=lambda entry: entry.path.split("/"))
        return self._entries

    async def _list(self, graft: Graft, found: dict[str, Entry]) -> None:
        """The graft's files that are in the context, by their paths there."""
        if graft is _owner(self._grafts, self._directory):
            inner = _relative(self._directory, graft.prefix)
            tree, outer = (f"{graft.commit}:{inner}" if inner else graft.commit), ""
        elif (place := _relative(graft.prefix, self._directory)) is not None:
            tree, outer = graft.commit, place + "/"
        else:
            return
        async with aclosing(list_tree(self._git, graft.mirror, tree)) as batches:
            async for batch in batches:
                for mode, digest, size, raw in batch:
                    if mode == SUBMODULE:
                        continue
                    path = outer + _checked(raw)
                    if path in found:
                        raise StepFailed(f"the repository has `{path}` twice", code="unsafe_tree")
                    found[path] = Entry(path, _mode(mode), size, digest)
                if len(found) > self._maximum_files:
                    raise StepFailed(
                        f"the context has more than {self._maximum_files} files",
                        code="context_too_large",
                        advice="choose a smaller `context`, or raise the worker's `maximum_context_files`",
                    )

    def read(self, entries: Collection[Entry]) -> AbstractAsyncContextManager[AsyncIterator[tuple[Entry, bytes]]]:
        """Contents, in the order asked for."""
        return self._read(list(entries))

    @asynccontextmanager
    async def _read(self, entries: list[Entry]) -> AsyncIterator[AsyncIterator[tuple[Entry, bytes]]]:
        with _Damage(self._mirrors):
            async with read_blobs(self._git, self._mirrors, [entry.digest for entry in entries]) as chunks:

                async def named() -> AsyncGenerator[tuple[Entry, bytes], None]:
                    async for position, chunk in chunks:
                        yield entries[position], chunk

                async with aclosing(named()) as contents:
                    yield contents

    @asynccontextmanager
    async def tar(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """The context in GNU tar format, 64 KiB and more a chunk.

        Not `git archive`: what a repository's attributes say (export-ignore, export-subst, eol) would change it.
        """
        entries = await self.entries()
        async with self.read(entries) as contents:
            async with aclosing(self._tar(contents)) as chunks:
                yield chunks

    async def _tar(self, contents: AsyncIterator[tuple[Entry, bytes]]) -> AsyncGenerator[bytes, None]:
        buffer = bytearray()
        parents: set[str] = set()
        entry: Entry | None = None
        link = b""
        written = 0
        async for each, chunk in contents:
            if each is not entry:
                buffer += self._ended(entry, written, link)
                buffer += self._directories(each.path, parents)
                entry, written, link = each, 0, b""
                if each.mode != SYMLINK:
                    buffer += self._header(each.path, each.mode, each.size, tarfile.REGTYPE)
            if each.mode == SYMLINK:
                link += chunk
            else:
                buffer += chunk
                written += len(chunk)
            if len(buffer) >= 1 << 16:
                yield bytes(buffer)
                buffer.clear()
        buffer += self._ended(entry, written, link) + b"\0" * 2 * _BLOCK
        yield bytes(buffer)

    def _ended(self, entry: Entry | None, written: int, link: bytes) -> bytes:
        if entry is None:
            return b""
        if entry.mode == SYMLINK:
            return self._header(entry.path, 0o777, 0, tarfile.SYMTYPE, link.decode("utf-8", "surrogateescape"))
        return b"\0" * (-written % _BLOCK)

    def _directories(self, path: str, known: set[str]) -> bytes:
        headers = b""
        at = path.find("/")
        while at >= 0:
            if (parent := path[:at]) not in known:
                known.add(parent)
                headers += self._header(parent, 0o755, 0, tarfile.DIRTYPE)
            at = path.find("/", at + 1)
        return headers

    def _header(self, path: str, mode: int, size: int, kind: bytes, link: str = "") -> bytes:
        info = tarfile.TarInfo(path)
        info.mode, info.size, info.type, info.linkname, info.mtime = mode & 0o777, size, kind, link, self.time
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")

    async def check_dockerfile(self, dockerfile: str) -> None:
        """Raise `StepFailed` unless `dockerfile` is a text file in the context.

        Codes: `dockerfile_missing`, `dockerfile_is_directory`, `dockerfile_not_text`, `outside_context`.
        """
        entries = {entry.path: entry for entry in await self.entries()}

        async def look(path: str) -> Node | None:
            if entry := entries.get(path):
                return Node(entry.mode, entry.digest)
            below = path + "/"
            return Node(DIRECTORY) if any(each.startswith(below) for each in entries) else None

        async def target(node: Node) -> str:
            return await self._link(node.digest)

        what = "the Dockerfile"
        path, node = await follow(
            dockerfile, look, target, what=what, missing="dockerfile_missing", inside="the build context"
        )
        if node.mode == DIRECTORY:
            raise StepFailed(
                f"{what} `{dockerfile}` is a directory",
                code="dockerfile_is_directory",
                advice=f"perhaps {path}/Dockerfile",
            )
        content = await read_blob(self._git, self._mirrors, node.digest, maximum=_MAXIMUM_DOCKERFILE)
        try:
            content.decode()
        except UnicodeDecodeError as error:
            raise StepFailed(
                f"{what} `{dockerfile}` is not UTF-8 (byte {error.start})",
                code="dockerfile_not_text",
                advice="save it as UTF-8",
            ) from None
        if b"\0" in content:
            raise StepFailed(
                f"{what} `{dockerfile}` contains a NUL byte", code="dockerfile_not_text", advice="save it as UTF-8"
            )

    async def _link(self, digest: str) -> str:
        content = await read_blob(self._git, self._mirrors, digest, maximum=_MAXIMUM_LINK)
        return content.decode("utf-8", "surrogateescape")


async def find_directory(git: Git, grafts: Collection[Graft], directory: str) -> str:
    """The context's path without symlinks. Raises `StepFailed` (`context_missing`, `outside_context`)."""
    mirrors = [graft.mirror for graft in grafts]

    async def look(path: str) -> Node | None:
        owner = _owner(grafts, path)
        inner = _relative(path, owner.prefix)
        if not inner:
            return Node(DIRECTORY)
        done = await git.local(owner.mirror, "ls-tree", "-z", "--full-tree", owner.commit, "--", inner)
        if done.code != 0:
            raise Corrupt(git.said(done).strip())
        head = done.stdout.partition(b"\t")[0].decode().split(" ")
        return Node(int(head[0], 8), head[2]) if len(head) == 3 else None

    async def target(node: Node) -> str:
        content = await read_blob(git, mirrors, node.digest, maximum=_MAXIMUM_LINK)
        return content.decode("utf-8", "surrogateescape")

    what = "the context"
    path, node = await follow(directory, look, target, what=what, missing="context_missing", inside="the repository")
    if node.mode not in (DIRECTORY, SUBMODULE):
        raise StepFailed(
            f"{what} `{directory}` is a file", code="context_missing", advice="name the directory that it is in"
        )
    return path


class _Damage:
    """Inside, a damaged mirror fails this attempt, and is made anew for the next."""

    def __init__(self, mirrors: list[Path]) -> None:
        self._mirrors = mirrors

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Corrupt):
            for mirror in self._mirrors:
                mark_broken(mirror)
            raise StepFailed(
                f"the worker's mirror of the repository is damaged: {error}",
                code="mirror_corrupt",
                advice="the next attempt makes it anew",
                again=True,
            ) from None


def _owner(grafts: Collection[Graft], path: str) -> Graft:
    """The graft whose tree has `path`: the innermost around it."""
    around = (graft for graft in grafts if _relative(path, graft.prefix) is not None)
    return max(around, key=lambda graft: len(graft.prefix))


def _relative(path: str, base: str) -> str | None:
    """`path` as seen from `base`, or None if it is not in it."""
    if base in ("", path):
        return path[len(base) :]
    return path.removeprefix(base + "/") if path.startswith(base + "/") else None


def _mode(mode: int) -> int:
    if mode == SYMLINK:
        return mode
    return 0o100755 if mode & 0o100 else 0o100644


def _checked(raw: bytes) -> str:
    """A path out of a tree. A hostile tree can name anything; no checkout stands between it and the engine."""
    try:
        path = raw.decode()
    except UnicodeDecodeError:
        raise StepFailed(
            f"the repository has a file name that is not UTF-8: {raw.decode('utf-8', 'backslashreplace')}",
            code="unsafe_tree",
            advice="rename it, or choose a context without it",
        ) from None
    parts = path.split("/")
    if any(part in ("", ".", "..") or part.lower() == ".git" for part in parts):
        raise StepFailed(f"the repository has a file named `{path}`, which git itself would refuse", code="unsafe_tree")
    return path


async def commit_time(git: Git, graft: Graft) -> int:
    """When the commit was made, seconds."""
    done = await git.local(graft.mirror, "show", "-s", "--format=%ct", graft.commit)
    text = done.stdout.decode("ascii", "replace").strip()
    await trio.lowlevel.checkpoint()
    return min(max(0, int(text)), (1 << 33) - 1) if text.isdigit() else 0
