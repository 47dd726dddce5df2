"""`Splits`: sees every job that is built in parts through, each in a task of its own."""

from functools import partial

import structlog
import trio

from blacktree.errors import BlacktreeError, NotFound
from blacktree.event import StateChanged
from blacktree.job import Job, JobState
from blacktree.orchestrator import moves, parting
from blacktree.orchestrator.ledger import DAMAGED_LOOK_SECONDS, Ledger
from blacktree.storage.base import Commit, Store

log = structlog.get_logger()


class Splits:
    """Follows the commits. What it knows is on record: another life goes on where this one was."""

    def __init__(self, store: Store, rules: moves.Rules) -> None:
        self._store = store
        self._ledger = Ledger(store)
        self._rules = rules
        self._news: dict[str, trio.Event] = {}
        self._nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        return len(self._news)

    def on_commit(self, commit: Commit) -> None:
        """A whole or a part has changed."""
        job = commit.job
        if job.gathers:
            self.take(job.id)
        news = self._news.get(job.part_of or job.id)
        if news is not None:
            news.set()

    def take(self, job_id: str) -> None:
        """See this one through, unless that is being done already. Before `run`: from then on."""
        if job_id not in self._news:
            self._news[job_id] = trio.Event()
            if self._nursery is not None:
                self._nursery.start_soon(self._tend, job_id, name=f"parts of {job_id}")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                for job_id in list(self._news):
                    self._nursery.start_soon(self._tend, job_id, name=f"parts of {job_id}")
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    async def _tend(self, job_id: str) -> None:
        try:
            while True:
                # Before the look: what changes from here on is looked at once more.
                news = self._news[job_id] = trio.Event()
                try:
                    if not await self._step(job_id):
                        return
                except NotFound:
                    return
                except BlacktreeError as error:
                    # The edge of one job: the others go on, and so does this one once that is mended.
                    log.error("a job in parts cannot be seen to", job=job_id, reason=str(error))
                    await trio.sleep(DAMAGED_LOOK_SECONDS)
                    continue
                await news.wait()
        finally:
            del self._news[job_id]

    async def _step(self, job_id: str) -> bool:
        """What is to be done now; False once the whole is in other hands again, or has ended."""
        whole = await self._ledger.insist(partial(self._store.get, job_id))
        if not whole.gathers:
            return False
        parts = {part.job_id: await self._part(part.job_id) for part in whole.parts}
        todo = parting.errands(whole, parts)
        for part in todo.create:
            await self._create(parting.part_job(whole, part))
        for id in todo.cancel:
            reason = whole.cancel_reason or "another part of the job has failed"
            await self._ledger.insist(partial(self._store.change, id, moves.cancel(reason, self._rules)))
        if not todo.create:
            await self._ledger.insist(partial(self._store.change, job_id, parting.advance(parts, self._rules)))
        return True

    async def _part(self, job_id: str) -> Job | None:
        try:
            return await self._ledger.insist(partial(self._store.get, job_id))
        except NotFound:
            return None

    async def _create(self, job: Job) -> None:
        records = [StateChanged(job.created_at, 0, "", JobState.QUEUED, f"part of job {job.part_of}")]
        told = [*moves.announce(job, records, self._rules), moves.ticket(job)]
        await self._ledger.insist(partial(self._store.create, job, records, told))
