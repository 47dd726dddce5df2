"""A bare mirror per repository on the worker's disk: fetched into under a lock, read without, kept under a budget."""

import hashlib
import os
import re
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog
import trio

from blacktree.address import Address
from blacktree.concurrency.lockfile import hold, try_lock
from blacktree.concurrency.process import Completed
from blacktree.concurrency.threads import in_thread
from blacktree.errors import StepFailed
from blacktree.services.core.workspace import remove_tree, work_directory
from blacktree.services.sync.failures import failure, is_corruption
from blacktree.services.sync.git import Git
from blacktree.services.sync.refs import checked_ref, choose, is_abbreviated, is_commit, patterns

log = structlog.get_logger()
T = TypeVar("T")

_LABEL = "blacktree-repository"  # in each mirror: the address as it was asked for; its time is the last use
_BROKEN = "blacktree-broken"
_IN_USE = "mirrors"  # in a job's workspace: the mirrors it reads
_MAXIMUM_PACKS = 30


class Resolved(msgspec.Struct, frozen=True):
    """A commit that is in a mirror, whole."""

    mirror: Path
    commit: str
    remark: str = ""


class Corrupt(Exception):
    """The mirror itself is damaged; a new one mends it."""


class Mirrors:
    """All mirrors below one state directory, as one build uses them.

    A fetch holds the mirror's lock, which its git inherits: even if the worker is killed, nobody else writes until
    that git has ended. A mirror that a job has noted in its workspace is not evicted.
    """

    def __init__(self, state: Path, git: Git, *, workspace: Path, maximum_bytes: int) -> None:
        self._root = state / "mirrors"
        self._git = git
        self._workspace = workspace
        self._maximum_bytes = maximum_bytes

    def path(self, address: Address) -> Path:
        """Where the mirror of this address is, or would be."""
        return self._root / f"{hashlib.sha256(address.url.encode()).hexdigest()[:32]}.git"

    async def resolve(self, address: Address, ref: str | None, *, given: str) -> Resolved:
        """The commit that `ref` names at the host now, fetched. `given` is the address as submitted.

        Raises `StepFailed`: see failures.py for what a host can say, and `ref_invalid`, `ref_not_found`,
        `ref_ambiguous`, `ref_not_commit`, `repository_empty`, `repository_too_large`.
        """
        if ref is not None and is_commit(ref.lower()):
            return await self.pin(address, ref.lower(), given=given)
        if ref is not None:
            checked_ref(ref)
        listing = await self._git.remote(None, address, "ls-remote", "--", address.url, *patterns(ref))
        self._check(listing, f"reading the refs of {address.url}")
        chosen = choose(ref, listing.stdout.decode("utf-8", "replace"))
        if chosen is None:
            if ref is not None and is_abbreviated(ref):
                return await self._in_mirror(
                    address, given, 40, lambda path, lock: self._expand(path, lock, address, ref)
                )
            raise _no_such_ref(address, ref)

        async def fetch(path: Path, lock: int) -> str:
            name = f"refs/blacktree/{hashlib.sha256(chosen.name.encode()).hexdigest()[:40]}"
            commit = await self._commit(path, chosen.object)
            if commit is None:
                await self._fetch(path, lock, address, f"+{chosen.name}:{name}")
                commit = await self._commit(path, name)
            if commit is None:
                raise StepFailed(
                    f"{chosen.name} of {address.url} is no commit", code="ref_not_commit", advice="choose another ref"
                )
            return commit

        found = await self._in_mirror(address, given, len(chosen.object), fetch)
        return Resolved(found.mirror, found.commit, chosen.remark)

    async def pin(self, address: Address, commit: str, *, given: str, gone: str = "ref_not_found") -> Resolved:
        """A commit by its full id, or by that of a tag of it; without network if the mirror has it.

        `gone` is the code if the host has not.
        """
        path = self.path(address)
        await in_thread(lambda: self._note(path))
        there = await self._commit(path, commit)
        if there is not None and not (path / _BROKEN).exists():
            await in_thread(lambda: _label(path, given))
            return Resolved(path, there)

        async def fetch(path: Path, lock: int) -> str:
            if (found := await self._commit(path, commit)) is not None:
                return found
            try:
                await self._fetch(path, lock, address, f"+{commit}:refs/blacktree/{commit}")
            except StepFailed as error:
                if error.code not in ("ref_not_found", "git_failed", "fetch_interrupted"):
                    raise
                # Some hosts give no commit by its id; it may be in a branch or tag.
                await self._fetch(path, lock, address, *_EVERYTHING)
            if (found := await self._commit(path, commit)) is None:
                raise StepFailed(
                    f"commit {commit} is not in {address.url}",
                    code=gone,
                    advice="it may have been removed by a force-push; push it again or build another ref",
                )
            return found

        return await self._in_mirror(address, given, len(commit), fetch)

    async def _expand(self, path: Path, lock: int, address: Address, beginning: str) -> str:
        await self._fetch(path, lock, address, *_EVERYTHING)
        listed = await self._git.local(path, "rev-parse", f"--disambiguate={beginning.lower()}")
        commits = {await self._commit(path, name) for name in listed.stdout.decode().split()} - {None}
        if len(commits) > 1:
            raise StepFailed(
                f"{beginning} is the beginning of {len(commits)} commits",
                code="ref_ambiguous",
                advice="write more of the commit id",
            )
        if commit := next(iter(commits), None):
            return commit
        raise _no_such_ref(address, beginning)

    async def _in_mirror(
        self, address: Address, given: str, id_length: int, work: Callable[[Path, int], Awaitable[str]]
    ) -> Resolved:
        path = self.path(address)
        await in_thread(lambda: self._note(path))
        async with hold(path.with_suffix(".lock")) as lock:
            for last in (False, True):
                await self._open(path, lock, id_length)
                try:
                    commit = await work(path, lock)
                    await in_thread(lambda: _label(path, given))
                    return Resolved(path, commit)
                except Corrupt as error:
                    log.warning("mirror corrupt, made anew", repository=address.url, error=str(error))
                    await in_thread(lambda: _throw_away(path))
                    if form := _OTHER_FORM.search(str(error)):
                        id_length = _ID_LENGTHS[form[1]]
                    if last:
                        raise StepFailed(
                            f"the mirror of {address.url} is damaged again: {error}",
                            code="mirror_corrupt",
                            advice="check the worker's disk",
                            again=True,
                        ) from None
        raise AssertionError("unreachable")

    def _note(self, path: Path) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self._workspace / _IN_USE, "a", encoding="ascii") as file:
            file.write(path.name + "\n")

    async def _open(self, path: Path, lock: int, id_length: int) -> None:
        """An existing mirror, freed of what a killed git left; or a new one."""
        if (path / "HEAD").exists() and not (path / _BROKEN).exists():
            await in_thread(lambda: _clear(path))
            return
        await in_thread(lambda: _throw_away(path))
        fresh = path.with_suffix(f".new-{secrets.token_hex(4)}")
        form = "sha256" if id_length == 64 else "sha1"
        words = ("init", "-q", "--bare", "--template=", "--initial-branch=none", f"--object-format={form}", str(fresh))
        self._check(await self._git.local(None, *words, inherited=[lock]), "making a mirror")
        await in_thread(lambda: os.rename(fresh, path))

    async def _fetch(self, path: Path, lock: int, address: Address, *refspecs: str) -> None:
        limit = self._maximum_bytes
        grown = await in_thread(lambda: any(path.glob("objects/pack/*.pack")))

        async def size() -> int:
            now = await in_thread(lambda: tree_bytes(path))
            if now > limit:
                raise StepFailed(
                    f"{address.url} is larger than {limit} bytes",
                    code="repository_too_large",
                    advice="raise the worker's `maximum_repository_bytes`, or make the repository smaller",
                )
            return now

        words = ["fetch", "--progress", "--force", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"]
        # Also from a clone that is shallow itself: otherwise git takes its objects and leaves out the ref, silently.
        words += ["--update-shallow"]
        words += ["--no-auto-maintenance", "--prune"] if len(refspecs) > 1 else ["--no-auto-maintenance"]
        done: Completed | None = None
        try:
            done = await self._git.remote(
                path, address, *words, "--", address.url, *refspecs, watched=size, inherited=[lock]
            )
            await size()
        except StepFailed as error:
            if error.code != "repository_too_large":
                raise
            if grown:
                # It has all that was ever fetched, also what branches have left since; a new one has what is there now.
                raise Corrupt(error.message) from None
            await in_thread(lambda: _throw_away(path))
            raise
        finally:
            if done is None or done.code != 0:
                # What has come of a pack may be all that the disk can hold, and nobody may ever ask for this one again.
                with trio.CancelScope(shield=True):
                    await in_thread(lambda: _clear(path))
        self._check(done, f"fetching {address.url}", mirror=path)
        if await in_thread(lambda: sum(1 for _ in path.glob("objects/pack/*.pack"))) > _MAXIMUM_PACKS:
            # Each fetch leaves a pack; readers find their objects again in the joined one. What the packs have is kept
            # as it is: looking for deltas between them takes two seconds and more for a file of ten megabytes.
            await self._git.local(path, "repack", "-d", "-q", "--geometric=2", "--window=0", inherited=[lock])

    async def _commit(self, path: Path, name: str) -> str | None:
        """The commit behind a name, with its tree, if the mirror has both."""
        if not (path / "HEAD").exists():
            return None
        done = await self._git.local(path, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        commit = done.stdout.decode("ascii", "replace").strip()
        if done.code != 0 or not is_commit(commit):
            return None
        tree = await self._git.local(path, "cat-file", "-e", f"{commit}^{{tree}}")
        return commit if tree.code == 0 else None

    def _check(self, done: Completed, what: str, *, mirror: Path | None = None) -> None:
        if done.code == 0:
            return
        said = self._git.said(done)
        error = failure(said, done.code, what)
        # A complaint that names a file of the mirror is about the mirror, whatever else the host said.
        damaged = f"{mirror}/objects" in said or is_corruption(said) or _OTHER_FORM.search(error.message)
        if mirror and error.code not in _NOT_THE_MIRROR and damaged:
            raise Corrupt(error.message)
        raise error


_NOT_THE_MIRROR = frozenset(
    {"disk_full", "tls_failed", "credentials_needed", "repository_not_found", "host_unreachable"}
)
# A repository that was made anew, or one that is asked for by the beginning of a commit's id, which tells no form.
_OTHER_FORM = re.compile(r"mismatched algorithms: client \w+; server (sha1|sha256)\b")
_ID_LENGTHS = {"sha1": 40, "sha256": 64}
_EVERYTHING = ("+refs/heads/*:refs/blacktree-all/heads/*", "+refs/tags/*:refs/blacktree-all/tags/*")


def _no_such_ref(address: Address, ref: str | None) -> StepFailed:
    if ref is None:
        return StepFailed(
            f"{address.url} has no default branch; is it empty?", code="repository_empty", advice="push a commit first"
        )
    return StepFailed(
        f"{address.url} has no branch, tag or commit `{ref}`",
        code="ref_not_found",
        advice="check the name; is it pushed?",
    )


def _label(path: Path, given: str) -> None:
    label = path / _LABEL
    if not label.exists() or label.read_text(encoding="utf-8", errors="replace") != given:
        label.write_text(given, encoding="utf-8")
    os.utime(label)


def _clear(path: Path) -> None:
    for left in (*path.rglob("*.lock"), *path.glob("objects/pack/tmp_*"), *path.glob("objects/pack/.tmp-*")):
        left.unlink(missing_ok=True)


def _throw_away(path: Path) -> None:
    aside = path.with_suffix(f".old-{secrets.token_hex(4)}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        pass
    else:
        remove_tree(aside)
    for left in (*path.parent.glob(f"{path.stem}.new-*"), *path.parent.glob(f"{path.stem}.old-*")):
        remove_tree(left)


def mark_broken(mirror: Path) -> None:
    """Have the mirror made anew at its next use: what was read from it is damaged."""
    try:
        (mirror / _BROKEN).touch()
    except FileNotFoundError:
        pass  # it is gone already


def tree_bytes(path: Path) -> int:
    """The bytes of all files below `path`; files that vanish meanwhile do not count."""
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_size
            except FileNotFoundError:
                pass
    return total


def _by_use(state: Path) -> list[tuple[float, Path, str]]:
    found = []
    for path in (state / "mirrors").glob("*.git"):
        try:
            label = path / _LABEL
            found.append((label.stat().st_mtime, path, label.read_text(encoding="utf-8", errors="replace")))
        except OSError:
            found.append((0.0, path, ""))
    return sorted(found, reverse=True)


def warm(state: Path) -> list[str]:
    """The repositories that are mirrored, as they were submitted, the latest used first. Blocking, quick."""
    return [given for _, _, given in _by_use(state) if given]


def trim(state: Path, budget_bytes: int) -> list[str]:
    """Remove the mirrors used least lately until the rest fits; those that a job reads stay. Blocking.

    Answers the repositories whose mirrors went.
    """
    total = 0
    gone = []
    for _, path, given in _by_use(state):
        size = tree_bytes(path)
        if total + size <= budget_bytes:
            total += size
            continue
        lock = try_lock(path.with_suffix(".lock"))
        if lock is None or path.name in _in_use(state):
            total += size
            if lock is not None:
                os.close(lock)
            continue
        try:
            _throw_away(path)
            gone.append(given)
        finally:
            os.close(lock)
    return gone


def _in_use(state: Path) -> set[str]:
    names: set[str] = set()
    for note in work_directory(state).glob(f"*/{_IN_USE}"):
        try:
            names.update(note.read_text(encoding="ascii").split())
        except OSError:
            pass
    return names
