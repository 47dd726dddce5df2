"""What `blacktree build` finds in the repository it stands in: the remote, the commit, and what is not there yet.

Only what git has on this disk is asked; no remote is spoken to. A remote's user name and password stay here.
"""

import os
import shlex
import subprocess
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from blacktree.address import parse_address
from blacktree.cli.wording import shown
from blacktree.errors import BadRequest

GIT_SECONDS = 60.0
_NAMED = 3


class Found(NamedTuple):
    """What is to be built, and what a person should be told first, a line each."""

    repository: str
    ref: str
    lines: list[str]


def here(directory: str = ".", *, ref: str | None = None) -> Found:
    """The remote of the repository in `directory` and the newest commit of HEAD that it has, as far as is known here.

    With a `ref` that is what is asked for, without another word. Raises `BadRequest` where nothing can be built.
    """
    top = _top(directory)
    if ref is not None:
        repository, left_out = _address(top, _remote(top, _branch(top)))
        return Found(repository, ref, left_out)
    branch = _branch(top)
    head = _ask(top, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if not head:
        raise BadRequest(
            f"the repository {top} has no commit yet", code="no_commit", advice="commit and push something first"
        )
    remote = _remote(top, branch)
    repository, lines = _address(top, remote)
    lines += uncommitted(top)
    commit, ahead = _pushed(top, remote, head)
    name = f"branch {branch}" if branch else "the detached HEAD"
    if not commit:
        raise BadRequest(
            f"no commit of {name} is on the remote {remote}, as far as is known here",
            code="not_pushed",
            advice=f"push it (`git push {remote} HEAD`), or fetch if it is there already",
        )
    if ahead:
        lines.append(f"not pushed: {_count(ahead, 'commit')} of {name}; what is built is the commit before")
    lines.append(f"building {told(repository)} at {_titled(top, commit)} ({name})")
    return Found(repository, commit, lines)


def uncommitted(directory: str) -> list[str]:
    """A line on what is in the work tree and in no commit; none if all is, or if this is no work tree."""
    status = _ask(directory, "status", "--porcelain=v1", "-z", "--untracked-files=normal", "--ignore-submodules=none")
    changed, untracked = _parse_status(status)
    if not changed and not untracked:
        return []
    parts = [_count(len(changed), "changed file")] if changed else []
    parts += [_count(len(untracked), "untracked file")] if untracked else []
    names = [*changed, *untracked]
    told_names = ", ".join(shown(name, terminal=True) for name in names[:_NAMED])
    more = ", …" if len(names) > _NAMED else ""
    return [f"not committed: {' and '.join(parts)} ({told_names}{more}); what is built is without them"]


def refuse_below(directory: str) -> None:
    """Raises `BadRequest` for a directory inside a repository: nobody could fetch from it."""
    prefix = _ask(directory, "rev-parse", "--show-prefix").rstrip("/")
    if not prefix:
        return
    top = _ask(directory, "rev-parse", "--show-toplevel")
    raise BadRequest(
        f"{os.path.abspath(directory)} is a directory inside the repository {top}",
        code="no_repository",
        advice=f"name that, and this as its context: `{shlex.quote(top)} --context {shlex.quote(prefix)}`",
    )


def _parse_status(status: str) -> tuple[list[str], list[str]]:
    """Changed and untracked paths of `git status --porcelain=v1 -z`."""
    changed: list[str] = []
    untracked: list[str] = []
    entries = iter(status.split("\0"))
    for entry in entries:
        if len(entry) < 4:
            continue
        (untracked if entry.startswith("??") else changed).append(entry[3:])
        if entry[0] in "RC":
            # A rename has the old name behind the new one.
            next(entries, None)
    return changed, untracked


def told(address: str) -> str:
    """An address as a person may see it: without anything that could be a credential.

    >>> told("https://me:secret@host/app.git?token=x")
    'https://host/app.git'
    """
    return shown(without_credentials(address)[0], terminal=True)


def without_credentials(url: str) -> tuple[str, bool]:
    """The address without user and password (the user of ssh stays), query and fragment; whether anything was there."""
    if "://" not in url:
        return url, False
    try:
        parts = urlsplit(url)
    except ValueError:
        raise BadRequest("the remote's address is none", code="remote_address", advice="name a REPOSITORY") from None
    user, at, host = parts.netloc.rpartition("@")
    keeps = parts.scheme.lower() in ("ssh", "git+ssh", "ssh+git") and at
    netloc = f"{user.partition(':')[0]}@{host}" if keeps else host
    bare = urlunsplit((parts.scheme, netloc, parts.path, "", ""))
    return bare, netloc != parts.netloc or bool(parts.query)


def _top(directory: str) -> str:
    inside = _ask(directory, "rev-parse", "--is-inside-work-tree")
    found = _ask(directory, "rev-parse", "--show-toplevel") if inside == "true" else ""
    found = found or _ask(directory, "rev-parse", "--absolute-git-dir")
    if not found:
        raise _none(directory)
    return found


def _none(directory: str) -> BadRequest:
    """Why git takes this for no repository: that there is none, or one that it does not trust or cannot read."""
    path = os.path.abspath(directory)
    said = shown(
        _run(directory, "rev-parse", "--git-dir").stderr.decode("utf-8", "replace").partition("\n")[0], terminal=True
    )
    if not said or "not a git repository (" in said:
        return BadRequest(
            f"{path} is in no git repository",
            code="no_repository",
            advice="name one: `blacktree build REPOSITORY`, an address or a path",
        )
    advice = "mend it, or name a REPOSITORY"
    if "dubious ownership" in said:
        advice = "it is another user's: `git config --global --add safe.directory DIRECTORY` if you trust it"
    return BadRequest(f"git refuses the repository of {path}: {said}", code="no_repository", advice=advice)


def _branch(top: str) -> str:
    return _ask(top, "symbolic-ref", "--quiet", "--short", "HEAD")


def _remote(top: str, branch: str) -> str:
    """The name of the branch's remote, else origin, else the only one."""
    remotes = _ask(top, "remote").splitlines()
    tracked = _ask(top, "config", "--get", f"branch.{branch}.remote") if branch else ""
    for name in (tracked, "origin"):
        if name in remotes:
            return name
    if len(remotes) == 1:
        return remotes[0]
    if not remotes:
        raise BadRequest(
            f"the repository {top} has no remote, so no worker could fetch from it",
            code="no_remote",
            advice="add one with `git remote add origin URL` and push; where the farm may read this disk: "
            "`blacktree build .`",
        )
    raise BadRequest(
        f"the repository {top} has the remotes {', '.join(remotes)}, and its branch follows none of them",
        code="which_remote",
        advice="choose one with `git push -u REMOTE HEAD`, or name a REPOSITORY",
    )


def _address(top: str, remote: str) -> tuple[str, list[str]]:
    """The remote's address for the farm, and a word if something was left out of it."""
    # As git itself would fetch from it, `insteadOf` and all.
    url = _ask(top, "remote", "get-url", remote)
    bare, had = without_credentials(url)
    address = parse_address(bare, allow_local=True, where=f"the remote {remote}")
    if address.local and "://" not in bare and not os.path.isabs(bare):
        bare = os.path.normpath(os.path.join(top, bare))
    lines = []
    if had:
        lines.append(f"the remote {remote} holds a user name or password; the farm uses credentials of its own")
    return bare, lines


def _pushed(top: str, remote: str, head: str) -> tuple[str, int]:
    """The newest commit in HEAD's history that some branch of the remote has (empty: none), and how many are newer."""
    listed = _ask(top, "rev-list", "--boundary", "--topo-order", head, "--not", f"--remotes={remote}").splitlines()
    if not listed:
        return head, 0
    ahead = sum(not line.startswith("-") for line in listed)
    if not ahead:
        return head, 0
    shared = [line[1:] for line in listed if line.startswith("-")]
    if len(shared) > 1:
        # After a merge several of them border on what is new: the one that was made last.
        shared = _ask(top, "rev-list", "--no-walk=sorted", *shared[:100]).splitlines()
    return (shared[0] if shared else ""), ahead


def _titled(top: str, commit: str) -> str:
    title = shown(_ask(top, "show", "--no-patch", "--format=%s", commit), terminal=True)
    return f"{commit[:12]} “{title[:60]}{'…' if len(title) > 60 else ''}”" if title else commit[:12]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _ask(directory: str, *words: str) -> str:
    """What git answers, without the last newline; empty if it refuses. Raises `BadRequest` without git."""
    done = _run(directory, *words)
    return done.stdout.decode("utf-8", "replace").rstrip("\n") if done.returncode == 0 else ""


def _run(directory: str, *words: str) -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(
            _command(directory, words),
            # Its errors are looked at, so they are to be in English.
            env=os.environ
            | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_MESSAGES": "C", "LANGUAGE": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise BadRequest(
            "git is not installed here, so the repository of this directory cannot be found",
            code="no_git",
            advice="install git, or name a REPOSITORY",
        ) from None
    except subprocess.TimeoutExpired:
        raise BadRequest(
            f"git did not answer within {GIT_SECONDS:.0f} s", code="git_slow", advice="name a REPOSITORY"
        ) from None


def _command(directory: str, words: Sequence[str]) -> list[str]:
    # A repository of unknown origin must not have us run its monitor.
    return ["git", "-c", "core.fsmonitor=false", "-c", "log.showSignature=false", "-C", directory, *words]
