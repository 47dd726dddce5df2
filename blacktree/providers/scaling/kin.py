"""Processes told by their command line: workers that some orchestrator of this farm started, found in /proc."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import trio

# `blacktree worker` with these arguments, in this order, and nothing between.
WORDS = ("worker", "--id", "{id}", "--with-farm", "{state}")


def arguments(worker_id: str, state: str) -> list[str]:
    """What a worker is started with, and found by."""
    return [word.format(id=worker_id, state=state) for word in WORDS]


def find(state: str, pool: str) -> dict[str, int]:
    """Worker ids to pids of this user's living processes for this farm and pool. Blocking: reads /proc."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (worker_id := told_id(int(name), state)) and belongs(worker_id, pool):
            found[worker_id] = int(name)
    return found


def told_id(pid: int, state: str) -> str:
    """The worker id in this process's command line; empty if it is none of ours. A zombie has no command line."""
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
            return ""
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        # Any other trouble (no descriptors left, say) must not look as if it had ended.
        return ""
    for at in range(len(words) - len(WORDS)):
        worker_id = words[at + 2]
        if words[at] == WORDS[0] and words[at : at + len(WORDS)] == arguments(worker_id, state):
            return worker_id
    return ""


def belongs(worker_id: str, pool: str) -> bool:
    """Whether the scaler gave this id to a worker of this pool (`auto-POOL-…`)."""
    return worker_id.rpartition("-")[0] == f"auto-{pool}"


async def end(pid: int, state: str, worker_id: str, grace_seconds: float) -> None:
    """SIGTERM, wait, SIGKILL; returns when it is gone. Does nothing if the number belongs to another by now."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Looked at after the descriptor was opened: from there on the number cannot change hands.
        if told_id(pid, state) != worker_id:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            with trio.move_on_after(grace_seconds):
                await trio.lowlevel.wait_readable(handle)
                return
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            await trio.lowlevel.wait_readable(handle)
    finally:
        os.close(handle)
