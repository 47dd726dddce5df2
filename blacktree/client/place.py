"""Finding a place in a job's log, and text in it, without reading the whole."""

from collections.abc import Callable
from typing import Any

from blacktree.client.calls import Client


async def first_seq(farm: Client, job_id: str, fits: Callable[[dict[str, Any]], bool]) -> int:
    """The number of the first event that `fits`, or of the one that comes next if none does. Raises `NotFound`.

    Every event behind one that fits must fit too. Asks for one event at a time, twice the logarithm of their number.
    """

    async def there(seq: int) -> bool:
        events = (await farm.events(job_id, seq, limit=1))["events"]
        return not events or fits(events[0])

    before, at = 0, 1
    while not await there(at):
        before, at = at, 2 * at
    while at - before > 1:
        middle = (before + at) // 2
        if await there(middle):
            at = middle
        else:
            before = middle
    return at


async def end_of_log(farm: Client, job_id: str) -> int:
    """The number that the next event will have. Raises `NotFound`."""
    return await first_seq(farm, job_id, lambda _: False)


async def search(farm: Client, job_id: str, text: str, from_seq: int = 1) -> dict[str, Any]:
    """A stretch of the log looked through by the server for lines with `text`, case aside.

    `{"events": [...], "next_seq": n or null, "seen_seq": n}`: the lines, and each `step_started` passed, that they can
    be named; null once the end was reached. Raises `NotFound`.
    """
    return await farm.call("job.search", {"id": job_id, "text": text, "from_seq": from_seq, "with_events": True})
