"""Paths inside a tree: symlinks are followed within it and never out of it."""

from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from blacktree.errors import StepFailed

_MOST_LINKS = 40  # as Linux follows

DIRECTORY = 0o040000
SYMLINK = 0o120000
SUBMODULE = 0o160000


class Node(msgspec.Struct, frozen=True):
    """What a tree has at a path: git's mode, and the object's id (empty for an implied directory)."""

    mode: int
    digest: str = ""


async def follow(
    path: str,
    look: Callable[[str], Awaitable[Node | None]],
    target: Callable[[Node], Awaitable[str]],
    *,
    what: str,
    missing: str,
    inside: str,
) -> tuple[str, Node]:
    """Where `path` leads: a path without symlinks, and its node. The root is `""`, a directory.

    `look` answers for a path whose parents are no symlinks. Raises `StepFailed`: code `missing` if there is nothing,
    `outside_context` if the way leads out of the tree. `what` and `inside` name path and tree in the message.
    """
    todo = deque(path.split("/"))
    done: list[str] = []
    node = Node(DIRECTORY)
    links = 0
    while todo:
        part = todo.popleft()
        if part in ("", "."):
            continue
        if part == "..":
            if not done:
                raise _outside(path, what, inside)
            done.pop()
            node = Node(DIRECTORY)
            continue
        found = await look("/".join([*done, part])) if node.mode in (DIRECTORY, SUBMODULE) else None
        if found is None:
            raise StepFailed(
                f"{what} `{path}` is not in {inside}",
                code=missing,
                advice="check the path; upper and lower case differ",
            )
        if found.mode != SYMLINK:
            done.append(part)
            node = found
            continue
        links += 1
        to = await target(found)
        if links > _MOST_LINKS:
            raise StepFailed(f"{what} `{path}` leads through too many symlinks", code=missing)
        if to.startswith("/"):
            raise _outside(path, what, inside)
        todo.extendleft(reversed(to.split("/")))
    return "/".join(done), node


def _outside(path: str, what: str, inside: str) -> StepFailed:
    return StepFailed(
        f"{what} `{path}` leads out of {inside} through a symlink",
        code="outside_context",
        advice="a build sees its context only: put the file there",
    )
