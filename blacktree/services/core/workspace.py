"""A job's directory on a worker: made private, removed for sure; and the lock on the state directory it lives in."""

import errno
import fcntl
import os
import re
import stat
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path

import structlog
import trio

from blacktree.concurrency.threads import in_thread
from blacktree.errors import Broken, Conflict, StorageFailed

log = structlog.get_logger()

_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_NAME = re.compile(r"(?P<job>[A-Za-z0-9_-]{1,64})-\d+\Z")
_REMOVAL_SECONDS = 30.0


def work_directory(state: Path) -> Path:
    """Where the jobs' directories are."""
    return state / "work"


@asynccontextmanager
async def open_workspace(state: Path, job_id: str, attempt: int) -> AsyncIterator[Path]:
    """`<state>/work/<job>-<attempt>`, empty and 0700, gone at the end whatever ended the block.

    What a crashed predecessor left under the same name is removed first. Raises `StorageFailed` if it cannot be made.
    """
    if not _JOB_ID.match(job_id):
        raise Broken(f"{job_id!r} is no job id")
    path = work_directory(state) / f"{job_id}-{attempt}"
    try:
        await in_thread(lambda: _make(path))
    except OSError as error:
        raise StorageFailed(
            f"cannot make the job's directory {path}: {error.strerror}",
            code="workspace_failed",
            advice="check that the worker's state directory is writable and its disk has room",
        ) from None
    try:
        yield path
    finally:
        with trio.move_on_after(_REMOVAL_SECONDS, shield=True):
            try:
                await in_thread(lambda: remove_tree(path))
            except OSError as error:
                # Not worth the build's result: the sweep tries again.
                log.warning("workspace not removed", path=str(path), error=str(error))


async def sweep(state: Path, alive: Collection[str]) -> list[str]:
    """Remove the directories of jobs that are not `alive` (job ids); answers the names removed."""
    return await in_thread(lambda: _sweep(work_directory(state), frozenset(alive)))


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_tree(path)
    path.mkdir(mode=0o700)


def _sweep(work: Path, alive: frozenset[str]) -> list[str]:
    removed = []
    try:
        names = sorted(os.listdir(work))
    except FileNotFoundError:
        return []
    for name in names:
        match = _NAME.match(name)
        if match and match["job"] in alive:
            continue
        try:
            remove_tree(work / name)
            removed.append(name)
        except OSError as error:
            log.warning("workspace not removed", path=str(work / name), error=str(error))
    return removed


def remove_tree(path: Path) -> None:
    """Remove a file or a whole tree, however deep and whatever its modes; nothing there is fine. Follows no symlink.

    Directories found inside are first moved to the top: neither recursion nor path length then limits the depth.
    """
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            return
    except FileNotFoundError:
        return
    os.chmod(path, 0o700)
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fresh = (name for name in (f".moved-{number}" for number in count()) if not _exists(name, top))
        _empty(top, top, fresh)
        while inner := os.listdir(top):
            for name in inner:
                directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
                try:
                    _empty(directory, top, fresh)
                finally:
                    os.close(directory)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(path)


def _exists(name: str, directory: int) -> bool:
    try:
        os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


def _empty(directory: int, top: int, fresh: Iterator[str]) -> None:
    """Unlink what is no directory; directories become openable ones right below `top`."""
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
            continue
        os.chmod(name, 0o700, dir_fd=directory)
        if directory != top:
            os.rename(name, next(fresh), src_dir_fd=directory, dst_dir_fd=top)


@contextmanager
def lock_state_directory(path: Path) -> Iterator[None]:
    """Hold `path` (made 0700 if missing) for this process alone. The kernel frees it, however the process ends.

    Raises `Conflict` (code `state_in_use`) if another holds it, `StorageFailed` if it cannot be used.
    A child forked without exec shares the hold until it ends.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StorageFailed(
            f"cannot use the state directory {path}: {error.strerror}",
            code="state_unusable",
            again=False,
            advice="make it writable for this user, or name another with `state_directory`",
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise StorageFailed(f"cannot lock {path}: {error.strerror}", code="state_unusable") from None
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
            raise Conflict(
                f"the state directory {path} is in use" + (f" by process {holder}" if holder else ""),
                code="state_in_use",
                advice="stop the other process, or give this one a state directory of its own",
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)
