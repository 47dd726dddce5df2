"""Submodules: the commits that a repository wants in its directories, each from a mirror of its own."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing

import msgspec

from blacktree.address import Address, submodule_address
from blacktree.errors import BadRequest, StepFailed
from blacktree.services.sync.git import Git
from blacktree.services.sync.mirrors import Corrupt, Mirrors
from blacktree.services.sync.objects import list_tree
from blacktree.services.sync.paths import SUBMODULE
from blacktree.services.sync.tree import Graft

MAXIMUM_DEPTH = 8
MAXIMUM_NUMBER = 200


class Declared(msgspec.Struct, frozen=True):
    """What `.gitmodules` says of one."""

    name: str
    path: str
    url: str
    update: str = ""


def parse_modules(listing: bytes) -> dict[str, Declared]:
    """`git config --list -z` of a `.gitmodules`, by path. Later values win, as for git."""
    values: dict[str, dict[str, str]] = {}
    for item in listing.split(b"\0"):
        key, _, value = item.decode("utf-8", "replace").partition("\n")
        section, _, rest = key.partition(".")
        name, _, field = rest.rpartition(".")
        if section == "submodule" and name and field in ("path", "url", "update"):
            values.setdefault(name, {})[field] = value
    return {
        each["path"].rstrip("/"): Declared(name, each["path"].rstrip("/"), each.get("url", ""), each.get("update", ""))
        for name, each in values.items()
        if "path" in each
    }


async def graft_submodules(
    git: Git,
    mirrors: Mirrors,
    root: Graft,
    address: Address,
    notice: Callable[[str, str], Awaitable[None]],
) -> list[Graft]:
    """All submodules below `root`, fetched, however deep they nest (bounded). Raises `StepFailed` or `Corrupt`."""
    found: list[Graft] = []
    todo = [(root, address, 0)]
    while todo:
        graft, parent, depth = todo.pop()
        declared = await _declared(git, graft)
        if declared is None:
            continue
        for path, commit in await _links(git, graft):
            entry = declared.get(path)
            place = f"{graft.prefix}/{path}" if graft.prefix else path
            if entry is None or not entry.url or entry.update == "none":
                await notice("submodule_skipped", f"submodule {place} has no URL in .gitmodules or is switched off")
                continue
            if depth >= MAXIMUM_DEPTH or len(found) >= MAXIMUM_NUMBER:
                raise StepFailed(
                    f"submodules nest deeper than {MAXIMUM_DEPTH} or are more than {MAXIMUM_NUMBER}",
                    code="too_many_submodules",
                )
            try:
                where = submodule_address(entry.url, parent, where=f"submodule {place}")
            except BadRequest as error:
                raise StepFailed(error.message, code="submodule_refused", advice=error.advice) from None
            resolved = await mirrors.pin(where, commit, given=where.url, gone="submodule_commit_missing")
            child = Graft(resolved.mirror, resolved.commit, place)
            found.append(child)
            todo.append((child, where, depth + 1))
    return found


async def _declared(git: Git, graft: Graft) -> dict[str, Declared] | None:
    there = await git.local(graft.mirror, "ls-tree", "-z", "--full-tree", graft.commit, "--", ".gitmodules")
    if there.code != 0:
        raise Corrupt(git.said(there).strip())
    if not there.stdout.startswith(b"100"):
        return None  # none, or a symlink, which git does not follow either
    listed = await git.local(graft.mirror, "config", "--blob", f"{graft.commit}:.gitmodules", "--list", "-z")
    if listed.code != 0:
        raise StepFailed(
            f".gitmodules cannot be read: {git.said(listed).strip()[:300]}",
            code="submodule_refused",
            advice="mend .gitmodules",
        )
    return parse_modules(listed.stdout)


async def _links(git: Git, graft: Graft) -> list[tuple[str, str]]:
    found = []
    async with aclosing(list_tree(git, graft.mirror, graft.commit)) as batches:
        async for batch in batches:
            found += [(raw.decode("utf-8", "replace"), digest) for mode, digest, _, raw in batch if mode == SUBMODULE]
    return found
