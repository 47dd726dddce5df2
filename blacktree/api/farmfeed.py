"""`farm.watch`: newest jobs, workers and queue, then what changed; computed once for all who watch."""

import msgspec
import trio

from blacktree.api import messages
from blacktree.api.history import History
from blacktree.event import FarmEvent
from blacktree.orchestrator.control import Control

NEWEST_JOBS = 100
PERIOD_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 30.0

_encode = msgspec.json.Encoder().encode


class View:
    """One look at the farm, encoded: jobs by id, newest first."""

    def __init__(self, jobs: dict[str, bytes], workers: bytes, queue: bytes) -> None:
        self.jobs = jobs
        self.workers = workers
        self.queue = queue

    def whole(self, watch: int) -> bytes:
        """The result of `farm.watch`."""
        jobs = b",".join(self.jobs.values())
        return b'{"watch":%d,"jobs":[%b],"workers":%b,"queue":%b}' % (watch, jobs, self.workers, self.queue)

    def since(self, old: "View", watch: int) -> bytes | None:
        """The parameters of `farm.changed`: new and changed jobs, other parts if they changed; None if equal."""
        changed = [body for job_id, body in self.jobs.items() if old.jobs.get(job_id) != body]
        parts = [b'"watch":%d' % watch]
        if changed:
            parts.append(b'"jobs":[%b]' % b",".join(changed))
        if self.workers != old.workers:
            parts.append(b'"workers":' + self.workers)
        if self.queue != old.queue:
            parts.append(b'"queue":' + self.queue)
        return b"{%b}" % b",".join(parts) if len(parts) > 1 else None


class FarmFeed:
    """Looks at the farm at most once per version, however many watch."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self.history = History(control)
        self._lock = trio.Lock()
        self._view: View | None = None
        self._version = -1
        self._looked_at = -1e9

    async def view(self, version: int = 0) -> View:
        """A look that is not older than this version; without one, not older than a period."""
        async with self._lock:
            fresh = trio.current_time() < self._looked_at + PERIOD_SECONDS
            if self._view is None or self._version < version or (version == 0 and not fresh):
                self._looked_at = trio.current_time()
                self._view = await self._look()
                self._version = max(self._version, version)
            return self._view

    async def _look(self) -> View:
        found = await self._control.jobs((), limit=NEWEST_JOBS)
        workers, queue = self._control.workers(), await self._control.queue()
        jobs = {view.job.id: _encode(messages.job_json(view)) for view in found.jobs}
        return View(jobs, _encode(workers), _encode(queue))

    async def newer(self, version: int) -> int:
        """Waits for a change since this version, and at least a period."""
        await trio.sleep(PERIOD_SECONDS)
        return await self._control.farm_changed(version)


async def wait_for_farm_events(control: Control, from_seq: int, limit: int, wait: float) -> list[FarmEvent]:
    """The farm's own events from here on; with none yet, the first that come within `wait` seconds."""
    events = await control.farm_events(from_seq, limit)
    version = 0
    with trio.move_on_after(max(0.0, min(wait, LONGEST_WAIT_SECONDS))):
        while not events:
            version = await control.farm_changed(version)
            events = await control.farm_events(from_seq, limit)
    return events
