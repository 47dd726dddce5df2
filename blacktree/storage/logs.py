"""The writer's side of segment files: bytes go to the committed end, and are on disk before their commit."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from blacktree.storage.directory import Directory, sync_directory

_MOST_OPEN = 128


class Logs:
    """Open segment files. Everything that was appended since the last `sync` belongs to one group of changes."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._handles: dict[tuple[str, int], int] = {}
        self._written: dict[tuple[str, int], int] = {}
        # Directories with new names in them, and those whose own names are known to be durable.
        self._named: set[Path] = set()
        self._known: set[Path] = set()
        # Several are synced at once: the file system commits its journal for all of them together.
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="segments")

    def prepare(self, job_id: str, number: int, length: int) -> bool:
        """Open a segment that holds `length` committed bytes, and cut off what was never committed.

        False when it is shorter than that: then something is lost, and new blocks belong in a new segment.
        """
        try:
            handle = self._open(job_id, number, create=False)
        except FileNotFoundError:
            return False
        size = os.fstat(handle).st_size
        if size > length:
            os.ftruncate(handle, length)
        return size >= length

    def append(self, job_id: str, number: int, offset: int, data: bytes) -> None:
        """Write at the committed end. A new segment is made when `offset` is 0."""
        key = (job_id, number)
        handle = self._handles.get(key)
        if handle is None:
            handle = self._open(job_id, number, create=offset == 0)
        self._written.setdefault(key, offset)
        view = memoryview(data)
        while view:
            count = os.pwrite(handle, view, offset)
            view = view[count:]
            offset += count

    def sync(self) -> None:
        """Bring everything appended to disk. Raises `OSError`."""
        work = [partial(os.fdatasync, self._handles[key]) for key in self._written]
        work += [partial(sync_directory, path) for path in self._named]
        if len(work) == 1:
            work[0]()
        else:
            list(self._threads.map(_call, work))
        self._known |= {path for path in self._named if path.parent == self._directory.logs}
        self._named.clear()

    def committed(self) -> None:
        """What was appended is on record now."""
        self._written.clear()
        while len(self._handles) > _MOST_OPEN:
            os.close(self._handles.pop(next(iter(self._handles))))

    def failed(self) -> None:
        """What was appended is not on record: give its room back as far as the disk lets us, and start afresh."""
        for key, offset in self._written.items():
            handle = self._handles.get(key)
            if handle is not None:
                with suppress(OSError):
                    os.ftruncate(handle, offset)
        self._written.clear()
        self._named.clear()
        self.close_files()

    def forget(self, job_id: str, numbers: list[int]) -> None:
        """Close these segments: their job has ended, or they are about to be replaced."""
        for number in numbers:
            handle = self._handles.pop((job_id, number), None)
            if handle is not None:
                os.close(handle)

    def close_files(self) -> None:
        """Close every file."""
        while self._handles:
            os.close(self._handles.popitem()[1])

    def close(self) -> None:
        """The end."""
        self.close_files()
        self._threads.shutdown()

    def _open(self, job_id: str, number: int, *, create: bool) -> int:
        path = self._directory.segment(job_id, number)
        if create:
            shelf = path.parent.parent
            shelf.mkdir(mode=0o700, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            self._handles[job_id, number] = handle
            self._named |= {path.parent, shelf}
            if shelf not in self._known:
                self._named.add(shelf.parent)
        else:
            handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            self._handles[job_id, number] = handle
        return handle


def _call(work: Callable[[], None]) -> None:
    work()
