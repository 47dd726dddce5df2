"""How much work something is, counted in calls: as many on any machine, however busy it is."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Calls:
    """`count`: calls and returns so far, of Python's own functions too."""

    count = 0

    def __call__(self, *_: object) -> None:
        self.count += 1


@contextmanager
def counted_calls() -> Iterator[Calls]:
    """Those of this thread, within the block."""
    calls = Calls()
    sys.setprofile(calls)
    try:
        yield calls
    finally:
        sys.setprofile(None)
