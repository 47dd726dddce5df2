"""What holds before the daemons' own handling of signals is there: Python imports for most of a second."""

import codecs
import io
import os
import signal
import sys

DAEMONS = frozenset({"up", "orchestrator", "worker"})
INTERRUPTED = 130  # what shells make of it


def leave_in_order_from_now_on() -> None:
    """A daemon that is told to end (SIGTERM) while it only imports has nothing to give back: it ends with 0.

    Its own handling takes the place of this one later. A client's command ends as ever. Ctrl-C ends both without a
    word, until `interrupts_as_ever`: Python would print where in its imports it was.
    """
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    # Whoever started us may have it ignored; then it stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        code = 0 if command in DAEMONS else INTERRUPTED
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))
    if command in DAEMONS:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


def interrupts_as_ever() -> None:
    """Everything is imported: from here on whoever runs is told of Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def print_whatever_comes() -> None:
    """Where the locale is not UTF-8, what builds print must not end the command: a terminal shows what it can, a pipe
    gets UTF-8, which is what programs read JSON in."""
    out = sys.stdout
    if not isinstance(out, io.TextIOWrapper) or codecs.lookup(out.encoding).name == "utf-8":
        return
    if out.isatty():
        out.reconfigure(errors="replace")
    else:
        out.reconfigure(encoding="utf-8")


def unreadable_word() -> str:
    """The first word of the command line that is no text (bytes of another encoding), as a person may see it; empty:
    all are. No server could be told it."""
    for word in sys.argv[1:]:
        try:
            word.encode()
        except UnicodeEncodeError:
            return ascii(os.fsencode(word))[1:]
    return ""
