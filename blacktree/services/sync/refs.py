"""Names of branches, tags and commits: what may be one, and which of a host's refs is meant. Pure."""

import re

import msgspec

from blacktree.errors import StepFailed

_COMMIT = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
_ABBREVIATED = re.compile(r"[0-9a-f]{4,63}\Z")
# git-check-ref-format(1): rules 1 to 10, and no leading dash.
_BAD = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|\Z)|\.\Z|/\Z|\A[-/.]|\A@\Z")


def is_commit(text: str) -> bool:
    """Whether this is a full commit id (SHA-1 or SHA-256)."""
    return bool(_COMMIT.match(text))


def is_abbreviated(text: str) -> bool:
    """Whether this could be the beginning of a commit id."""
    return bool(_ABBREVIATED.match(text.lower())) and not is_commit(text.lower())


def checked_ref(ref: str) -> str:
    """`ref`, if git could have such a name. Raises `StepFailed` (code `ref_invalid`)."""
    if _BAD.search(ref) or not ref:
        raise StepFailed(
            f"`{ref}` cannot be a branch, tag or commit",
            code="ref_invalid",
            advice="name a branch, a tag or a commit; expressions such as `main~1` are not understood",
        )
    return ref


class Chosen(msgspec.Struct, frozen=True):
    """A ref of the host, the object it pointed to, and a remark if the name was ambiguous."""

    name: str
    object: str
    remark: str = ""


def patterns(ref: str | None) -> list[str]:
    """What to ask `git ls-remote` for."""
    if ref is None or ref == "HEAD":
        return ["HEAD"]
    if ref.startswith("refs/"):
        return [ref]
    return [f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/{ref}"]


def choose(ref: str | None, listing: str) -> Chosen | None:
    """The ref meant by `ref`, out of `git ls-remote`'s lines: a branch before a tag, as `git clone --branch` does."""
    known: dict[str, str] = {}
    for line in listing.splitlines():
        name_of, _, name = line.partition("\t")
        if is_commit(name_of):
            known[name] = name_of
    found = [Chosen(name, known[name]) for name in patterns(ref) if name in known]
    if not found:
        return None
    first = found[0]
    if len(found) > 1 and known.get(found[1].name + "^{}", found[1].object) != first.object:
        remark = f"`{ref}` is {first.name} and {found[1].name}; building {first.name} (write the full name to choose)"
        return Chosen(first.name, first.object, remark)
    return first
