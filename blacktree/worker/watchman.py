"""The guard process itself: kills the worker when it misses its own deadline. Runs alone, on the standard library.

Started as `python -I -S watchman.py PIPE MEMORY WORKER`: numbers of a pipe's reading end (its end of file is the
worker's end; a byte says that the deadline came nearer), of eight bytes of shared memory (the deadline, seconds on
CLOCK_BOOTTIME, 0 for none) and of a pidfd of the worker.
"""

import mmap
import os
import select
import signal
import struct
import sys
import time

LOOK_SECONDS = 0.5
AWAKE_SECONDS = 1.0


def watch(pipe: int, memory: int, worker: int) -> None:
    """Return when the worker has ended, or has been killed."""
    shared = mmap.mmap(memory, 8, prot=mmap.PROT_READ)
    ears = select.poll()
    ears.register(pipe, select.POLLIN)
    spared_until = 0.0
    while True:
        (deadline,) = struct.unpack("d", shared[:8])
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        if deadline and now >= max(deadline, spared_until):
            signal.pidfd_send_signal(worker, signal.SIGKILL)
            return
        # poll counts on a clock that stands still while the machine sleeps, so it looks often.
        wait = min(max(deadline, spared_until) - now, LOOK_SECONDS) if deadline else None
        if ears.poll(None if wait is None else wait * 1000 + 1) and not os.read(pipe, 4096):
            return
        late = time.clock_gettime(time.CLOCK_BOOTTIME) - now - (wait or 0.0)
        if wait is not None and late > AWAKE_SECONDS:
            # We slept ourselves: the machine was suspended. The worker gets a moment to see that its lease is over.
            spared_until = time.clock_gettime(time.CLOCK_BOOTTIME) + AWAKE_SECONDS


if __name__ == "__main__":
    # In a session of its own no terminal's signal reaches it; what is left is ours to ignore.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    watch(*(int(argument) for argument in sys.argv[1:4]))
