"""`up`'s worker as a child process: started, taken over after a crash of `up`, started again, ended by its id."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import structlog
import trio

from blacktree import __version__
from blacktree.concurrency.oneself import birth, own_command

log = structlog.get_logger()

RECORD_FILE = "worker.process"
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
HEALTHY_SECONDS = 60.0


class Running(Protocol):
    """A process that runs."""

    pid: int

    async def wait(self) -> object: ...

    def send_signal(self, sig: signal.Signals) -> None: ...


class Adopted:
    """A process that somebody else started. The descriptor names it for good: its number may be used again."""

    def __init__(self, pid: int, handle: int) -> None:
        self.pid = pid
        self._handle = handle

    async def wait(self) -> None:
        await trio.lowlevel.wait_readable(self._handle)

    def send_signal(self, sig: signal.Signals) -> None:
        signal.pidfd_send_signal(self._handle, sig)


class WorkerChild:
    """Keeps one worker process alive while it runs, and ends it when it is cancelled.

    The child has a session of its own, so that a terminal's Ctrl-C reaches the farm alone, which then ends it in
    order. A worker that outlived a crash of `up` with the same settings is taken over with its builds.
    """

    def __init__(
        self,
        arguments: list[str],
        environ: Mapping[str, str],
        state: Path,
        *,
        grace_seconds: float,
        command: list[str] | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._command = [*(command or own_command()), *arguments]
        self._environ = dict(environ)
        self._record = state / RECORD_FILE
        self._home = str(state)
        self._grace_seconds = grace_seconds
        self._note = note
        settings = sorted(item for item in self._environ.items() if item[0].startswith("BLACKTREE_"))
        self._fingerprint = hashlib.sha256(repr((__version__, self._command, settings)).encode()).hexdigest()[:16]
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self.pid: int | None = None
        self.ends = 0

    async def end(self) -> None:
        """End it for good; returns when it is gone. It leaves the farm in order if that still answers."""
        self._scope.cancel(reason="the farm ends")
        await self._ended.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        try:
            with self._scope:
                await self._keep()
        finally:
            self._ended.set()

    async def _keep(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            began = trio.current_time()
            process: Running = await self._take_over() or await self._start()
            self.pid = process.pid
            try:
                code = await process.wait()
            finally:
                with trio.CancelScope(shield=True):
                    await self._stop(process)
                self.pid = None
            self.ends += 1
            if trio.current_time() - began > HEALTHY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            log.warning("the worker process ended: starting it again", exit=code, pause_seconds=pause)
            self._note(f"the worker process ended ({_meaning(code)}); it is started again in {pause:g} s")
            await trio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _start(self) -> trio.Process:
        process = await trio.lowlevel.open_process(
            self._command,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            start_new_session=True,
        )
        mine = f"{process.pid} {birth(process.pid)} {self._fingerprint} {self._home}"
        self._record.touch(mode=0o600)
        self._record.write_text(f"{mine}\n", encoding="utf-8")
        return process

    async def _take_over(self) -> Adopted | None:
        try:
            pid_text, born, fingerprint, home = self._record.read_text(encoding="utf-8").strip().split(" ", 3)
            pid = int(pid_text)
            handle = os.pidfd_open(pid)
        except (OSError, ValueError):
            return None
        found = Adopted(pid, handle)
        # Compared after the descriptor was opened: from there on the number cannot change hands.
        # A copied state directory names the worker of the farm that it was copied from: none of ours.
        if birth(pid) != born or home != self._home:
            os.close(handle)
            return None
        if fingerprint != self._fingerprint:
            log.warning("a worker of an earlier start runs with other settings: ending it", pid=pid)
            await self._stop(found)
            os.close(handle)
            return None
        log.info("taking over the worker of an earlier start", pid=pid)
        return found

    async def _stop(self, process: Running) -> None:
        """Ask, wait, kill. Every wait has an end."""
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
            with trio.move_on_after(self._grace_seconds):
                await process.wait()
                return
            log.warning("the worker did not end in time: killing it", pid=process.pid)
            process.send_signal(signal.SIGKILL)
            with trio.move_on_after(5):
                await process.wait()


def _meaning(code: object) -> str:
    if not isinstance(code, int):
        return "its exit code is not known"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
