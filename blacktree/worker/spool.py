"""Where batches wait on disk while the orchestrator is away: one nameless file per attempt, one budget per worker."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from blacktree.concurrency.threads import in_thread


class SpoolBudget:
    """How much all spool files of this worker may hold together, bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    def take(self, size: int) -> bool:
        if self.used + size > self._limit:
            return False
        self.used += size
        return True

    def give_back(self, size: int) -> None:
        self.used -= size


class Spool:
    """One attempt's file. It has no name, so nothing is left of it after a crash."""

    def __init__(self, directory: Path, budget: SpoolBudget) -> None:
        self._directory = directory
        self._budget = budget
        self._file: IO[bytes] | None = None
        self._end = 0
        self._calls = 0
        self._clear_after = False

    async def append(self, pieces: Sequence[bytes]) -> list[int] | None:
        """Write the pieces and answer their offsets; None if the budget or the disk has no room (nothing is kept)."""
        size = sum(map(len, pieces))
        with self._held():
            if not self._budget.take(size):
                return None
            try:
                await in_thread(lambda: self._write(b"".join(pieces)))
            except BaseException as error:
                self._budget.give_back(size)
                if isinstance(error, OSError):
                    return None
                raise
            offsets = []
            for piece in pieces:
                offsets.append(self._end)
                self._end += len(piece)
            return offsets

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 - outlives this call
        view = memoryview(data)
        offset = self._end
        while view:
            written = os.pwrite(self._file.fileno(), view, offset)
            view, offset = view[written:], offset + written

    async def read(self, offset: int, size: int) -> bytes:
        """What was written there."""
        file = self._file
        assert file is not None
        with self._held():
            return await in_thread(lambda: os.pread(file.fileno(), size, offset))

    @contextmanager
    def _held(self) -> Iterator[None]:
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            if self._clear_after and not self._calls:
                self._clear_after = False
                self.clear()

    def clear(self) -> None:
        """Forget everything, also what is being written now: nothing here is needed any more."""
        if self._calls:
            # A thread has the file: closed under it, its number might already be another file's.
            self._clear_after = True
            return
        if self._file is not None:
            self._file.close()
            self._file = None
        self._budget.give_back(self._end)
        self._end = 0
