"""Git LFS: what stands in a repository for files that are kept elsewhere. They are not fetched; that is told."""

from collections.abc import Sequence

from blacktree.services.sync.tree import GitContext

# The first line of a pointer (Git LFS specification, "The Pointer"), which with its two others has this many bytes.
VERSION = b"version https://git-lfs.github.com/spec/v1\n"
_SIZES = range(len(VERSION) + 83, len(VERSION) + 101)
_LOOKED_AT = 500
_NAMED = 3


async def pointers(context: GitContext) -> list[str]:
    """Paths of files in the context that are pointers; of a great many candidates only the first are looked at."""
    candidates = [entry for entry in await context.entries() if entry.size in _SIZES][:_LOOKED_AT]
    heads: dict[str, bytes] = {}
    if candidates:
        async with context.read(candidates) as contents:
            async for entry, chunk in contents:
                heads[entry.path] = heads.get(entry.path, b"") + chunk
    return [path for path, head in heads.items() if head.startswith(VERSION)]


def told(paths: Sequence[str]) -> str:
    """For the notice.

    >>> told(["a.bin"])
    '1 file is a Git LFS pointer, not what it stands for (a.bin): Blacktree fetches none; fetch it in the Dockerfile'
    """
    named = ", ".join(paths[:_NAMED]) + (", …" if len(paths) > _NAMED else "")
    many = f"{len(paths)} files are Git LFS pointers, not what they stand for"
    what = many if len(paths) > 1 else "1 file is a Git LFS pointer, not what it stands for"
    return f"{what} ({named}): Blacktree fetches none; fetch {'them' if len(paths) > 1 else 'it'} in the Dockerfile"
