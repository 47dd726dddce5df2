"""Keeps the guard process running and tells it the deadline: the worker must not outlive its lease while it builds.

A worker that is frozen or swapped out cannot stop its builds, and an engine goes on with a build as long as its
client's connection is open (measured). The kernel closes the connections of a killed process, and then the engine ends
the builds. An idle worker has nothing to end, so it may sleep as long as it likes.
"""

import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
import trio

from blacktree.worker import watchman

log = structlog.get_logger()

RESTART_SECONDS = 0.2
RESTART_LIMIT_SECONDS = 5.0


class Guard:
    """`deadline(moment)` is cheap and may be called often. `up` is false while no guard watches.

    `fence`: what `fence.Fence` is made of, where there are replicas; then something of the guard may outlive
    the worker for so long.
    """

    def __init__(self, changed: Callable[[], None] = lambda: None, fence: Sequence[str] = ()) -> None:
        self._fence = fence
        self._memory = os.memfd_create("blacktree-guard", os.MFD_CLOEXEC)
        os.ftruncate(self._memory, 8)
        self._shared = mmap.mmap(self._memory, 8)
        self._values = memoryview(self._shared).cast("d")
        self._pipe: int | None = None
        self._changed = changed
        self.up = False
        self.pid = 0

    def deadline(self, moment: float) -> None:
        """Be killed at `moment` (CLOCK_BOOTTIME) unless this is called again; 0: no deadline."""
        before = self._values[0]
        self._values[0] = moment
        # The guard looks again when its deadline passes; only a nearer one needs a word.
        if moment and (not before or moment < before) and self._pipe is not None:
            try:
                os.write(self._pipe, b".")
            except (BlockingIOError, BrokenPipeError):
                pass

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the guard, and another when one dies. Ends when cancelled; the guard ends with it."""
        wait = RESTART_SECONDS
        announced = False
        try:
            while True:
                began = trio.current_time()
                try:
                    process = await self._start()
                except OSError as error:
                    log.error("guard not started", error=str(error))
                else:
                    self.up = True
                    self._changed()
                    if not announced:
                        task_status.started()
                        announced = True
                    try:
                        status = await process.wait()
                    finally:
                        self._hang_up()
                        with trio.move_on_after(2, shield=True):
                            await process.wait()
                    log.error("guard ended", status=status)
                self._changed()
                if not announced:
                    task_status.started()
                    announced = True
                if trio.current_time() - began > 60:
                    wait = RESTART_SECONDS
                await trio.sleep(wait)
                wait = min(wait * 2, RESTART_LIMIT_SECONDS)
        finally:
            self._hang_up()

    async def _start(self) -> trio.Process:
        theirs, ours = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(ours, False)
        myself = os.pidfd_open(os.getpid())
        program = [sys.executable, "-I", "-S", str(Path(watchman.__file__))]
        try:
            process = await trio.lowlevel.open_process(
                [*program, str(theirs), str(self._memory), str(myself), *self._fence],
                pass_fds=(theirs, self._memory, myself),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={},
                start_new_session=True,
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
            os.close(myself)
        self._pipe = ours
        self.pid = process.pid
        return process

    def _hang_up(self) -> None:
        self.up = False
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    def close(self) -> None:
        """After `run` has ended."""
        self._values.release()
        self._shared.close()
        os.close(self._memory)
