"""How late the event loop is: a timer four times a second, and how long after its moment it was served."""

import trio

from blacktree.histogram import QUICK, Histogram

SAMPLE_SECONDS = 0.25


async def sample_loop_delay(
    seconds: Histogram, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Observe until cancelled."""
    task_status.started()
    while True:
        due = trio.current_time() + SAMPLE_SECONDS
        await trio.sleep_until(due)
        seconds.observe(trio.current_time() - due)


def loop_delay() -> Histogram:
    """An empty one with fitting bounds."""
    return Histogram(QUICK)
