"""Signals as calls: first TERM or INT, second one, HUP."""

import signal
from collections.abc import Callable

import trio


async def stopping(
    first: Callable[[], None],
    second: Callable[[], None],
    reload: Callable[[], None] | None = None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """The first SIGTERM or SIGINT calls `first`, every later one `second`; SIGHUP calls `reload`. Ends when cancelled.

    `started()` comes once the receiver is open: before it, a signal would end the process.
    """
    calls = [first]
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                if reload is not None:
                    reload()
            elif calls:
                calls.pop()()
            else:
                second()
