"""What holds before the daemons' own handling of signals is there: Python imports for most of a second."""

import os
import signal
import sys

DAEMONS = frozenset({"up", "orchestrator", "worker"})


def leave_in_order_from_now_on() -> None:
    """A daemon that is told to end (SIGTERM) while it only imports has nothing to give back: it ends with 0.

    Its own handling takes the place of this one later. A client's command ends as ever.
    """
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if command in DAEMONS:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
