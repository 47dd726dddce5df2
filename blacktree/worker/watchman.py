"""The guard process itself: kills the worker when it misses its own deadline. Runs alone, on the standard library.

Started as `python -I -S watchman.py PIPE MEMORY WORKER [FENCE...]`: numbers of a pipe's reading end (its end of file is
the worker's end; a byte says that the deadline came nearer), of eight bytes of shared memory (the deadline, seconds on
CLOCK_BOOTTIME, 0 for none) and of a pidfd of the worker; and, where the worker keeps replicas, what `fence.Fence`
is made of: then they are ended in time when the worker is not there to do it.
"""

import mmap
import os
import runpy
import select
import signal
import struct
import sys
import time
from typing import Any

LOOK_SECONDS = 0.5
AWAKE_SECONDS = 1.0
LOOK_ORDERS_SECONDS = 5.0


def watch(pipe: int, memory: int, worker: int, fence: list[str]) -> None:
    """Return when the worker has ended, or has been killed, and its replicas need nobody."""
    shared = mmap.mmap(memory, 8, prot=mmap.PROT_READ)
    ears = select.poll()
    ears.register(pipe, select.POLLIN)
    spared_until = 0.0
    deputy = Deputy(fence)
    while True:
        (deadline,) = struct.unpack("d", shared[:8])
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        if deadline and now >= max(deadline, spared_until):
            signal.pidfd_send_signal(worker, signal.SIGKILL)
            break
        # poll counts on a clock that stands still while the machine sleeps, so it looks often.
        wait = min(max(deadline, spared_until) - now, LOOK_SECONDS) if deadline else None
        longest = deputy.look(now)
        patience = longest if wait is None or (longest is not None and longest < wait) else wait
        if ears.poll(None if patience is None else patience * 1000 + 1) and not os.read(pipe, 4096):
            break
        late = time.clock_gettime(time.CLOCK_BOOTTIME) - now - (wait or 0.0)
        if wait is not None and late > AWAKE_SECONDS:
            # We slept ourselves: the machine was suspended. The worker gets a moment to see that its lease is over.
            spared_until = time.clock_gettime(time.CLOCK_BOOTTIME) + AWAKE_SECONDS
    deputy.succeed()


class Deputy:
    """Does for the replicas what the worker cannot do any more. Costs next to nothing while there are none."""

    def __init__(self, fence: list[str]) -> None:
        self._arguments = fence
        self._orders = os.path.join(fence[0], "orders") if fence else ""
        self._fence: Any = None
        self._child = 0
        self._next = 0.0

    def look(self, now: float) -> float | None:
        """See whether a worker that lives has left something running that it should have ended; how long until the
        next look, None for ever."""
        if not self._orders:
            return None
        if now >= self._next:
            self._next = now + LOOK_ORDERS_SECONDS
            if self._may_move() and self._made() and (due := self._fence.due()):
                if now >= due:
                    self._send_child()
                else:
                    self._next = min(self._next, due)
        return max(self._next - now, 0.0)

    def succeed(self) -> None:
        """The worker has ended. In a process of its own: whoever waits for the guard's end waits no longer."""
        if self._made() and not os.fork():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._fence.run()

    def _send_child(self) -> None:
        """An engine may be slow, and the deadline must not wait for it."""
        if self._child and os.waitpid(self._child, os.WNOHANG) == (0, 0):
            return
        self._child = os.fork()
        if not self._child:
            try:
                self._fence.cut()
            finally:
                os._exit(0)

    def _may_move(self) -> bool:
        """Whether anything may start elsewhere, seen without understanding it: modules cost memory."""
        try:
            with open(self._orders, "rb") as file:
                orders = file.read()
        except OSError:
            return False
        return orders.count(b'"failover_seconds":') > orders.count(b'"failover_seconds":null')

    def _made(self) -> bool:
        if self._fence is None and self._orders and os.path.exists(self._orders):
            module = runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), "fence.py"))
            self._fence = module["Fence"](*self._arguments)
        return self._fence is not None


if __name__ == "__main__":
    # In a session of its own no terminal's signal reaches it; what is left is ours to ignore.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    watch(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:8])
