"""`top` as a program: feeds and keys change the state, the screen shows it, wishes are carried out."""

import math
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import trio
from msgspec.structs import replace

from blacktree.cli.connection import trust_in
from blacktree.cli.server import Endpoint
from blacktree.cli.top import hearing
from blacktree.cli.top.picture import picture
from blacktree.cli.top.pressing import pressed
from blacktree.cli.top.state import ACTIVE, WAITING, JobPage, State, Wish
from blacktree.cli.top.terminal import Terminal
from blacktree.client import Client
from blacktree.client.place import end_of_log
from blacktree.clock import now, rfc3339
from blacktree.errors import BlacktreeError, NotAllowed

FRAME_SECONDS = 0.06
TICK_SECONDS = 1.0
ACTIVE_SECONDS = 10.0
STRETCH = 1000
_ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
_FED = 100
_ASKED = 20


async def run(where: Endpoint) -> int:
    """Until somebody leaves (0), or the number of the signal that ended it.

    Raises what the first question to the server raises, and `BadRequest` without a terminal.
    """
    terminal = Terminal()
    top = Top(where, terminal)
    context = trust_in(where)
    async with Client(
        where.url, where.token, patience_seconds=math.inf, on_outage=top.outage, ssl_context=context
    ) as client:
        await client.server_info()
        with trio.open_signal_receiver(*_ENDS, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT) as signals:
            with terminal.taken():
                return await top.run(client, signals)


class Top:
    """The running program around one state."""

    def __init__(self, where: Endpoint, terminal: Terminal) -> None:
        self._terminal = terminal
        self._state = State(server=where.url)
        self._changed = trio.Event()
        self._client: Client
        self._nursery: trio.Nursery
        self._page_scope = trio.CancelScope()
        self._ended_by = 0

    async def run(self, client: Client, signals: AsyncIterator[int]) -> int:
        """Show and obey; answers the number of the signal that ended it, or 0."""
        self._client = client
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._obey_signals, signals)
            nursery.start_soon(self._draw)
            nursery.start_soon(self._obey_keys)
            nursery.start_soon(self._hear_farm)
            nursery.start_soon(self._hear_farm_events)
            nursery.start_soon(self._look_after_the_old)
        return self._ended_by

    def outage(self, reason: str) -> None:
        """A question to the server, or a job's page, has to wait."""
        self._set(replace(self._state, message=f"{reason}; trying again"))

    def _set(self, state: State) -> None:
        self._state = state
        self._changed.set()

    def _tell(self, message: str) -> None:
        self._set(replace(self._state, message=message))

    async def _draw(self) -> None:
        while True:
            self._changed = trio.Event()
            width, height = self._terminal.size
            self._state = replace(self._state, width=width, height=height)
            await self._terminal.draw(picture(self._state, now()))
            await trio.sleep(FRAME_SECONDS)
            with trio.move_on_after(TICK_SECONDS):
                await self._changed.wait()

    # What is typed, and signals

    async def _obey_keys(self) -> None:
        async for key in self._terminal.keys():
            state, wishes = pressed(self._state, key)
            self._set(state)
            for wish in wishes:
                await self._carry_out(wish)
        self._leave()

    async def _obey_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number in _ENDS:
                self._ended_by = number
                self._leave()
            elif number == signal.SIGTSTP:
                await self._terminal.suspend()
            elif number == signal.SIGCONT:
                await self._terminal.retake()
            self._changed.set()

    def _leave(self) -> None:
        self._nursery.cancel_scope.cancel()

    async def _carry_out(self, wish: Wish) -> None:
        match wish.what:
            case "quit":
                self._leave()
            case "suspend":
                # The others of this job too: a shell that waits for its pipeline sees all of it stop.
                os.killpg(0, signal.SIGTSTP)
            case "redraw":
                await self._terminal.retake()
            case "open" | "end":
                self._open(wish.subject)
            case "close":
                self._page_scope.cancel()
            case "older" | "newer":
                self._nursery.start_soon(self._fetch, wish)
            case "cancel":
                self._start(self._cancel, wish.subject)
            case "retry":
                self._start(self._retry, wish.subject)
            case "drain" | "undrain":
                self._start(self._drain, wish.subject, wish.what == "undrain")

    def _start(self, deed: Callable[..., Awaitable[None]], *arguments: object) -> None:
        async def carefully() -> None:
            try:
                await deed(*arguments)
            except BlacktreeError as error:
                self._tell(str(error))

        self._nursery.start_soon(carefully)

    async def _cancel(self, job_id: str) -> None:
        self._tell(f"job {job_id}: asked for cancellation, waiting for its proof")
        job = await self._client.cancel(job_id, reason="canceled in top")
        self._set(hearing.jobs(self._state, [job]))
        self._tell(f"job {job_id} {job['state'].replace('_', ' ')}")

    async def _retry(self, job_id: str) -> None:
        job = await self._client.retry(job_id)
        self._set(hearing.jobs(self._state, [job]))
        self._tell(f"job {job_id} is built again as {job['id']}")
        if self._state.page is not None and self._state.page.id == job_id:
            self._set(replace(self._state, page=JobPage(id=job["id"], job=job)))
            self._open(job["id"])
        else:
            self._set(replace(self._state, chosen_job=job["id"]))

    async def _drain(self, worker_id: str, undo: bool) -> None:
        worker = await self._client.drain(worker_id, undo=undo)
        rest = f"; {worker['busy']} still running" if worker["busy"] and not undo else ""
        self._tell(f"worker {worker_id} {'takes builds again' if undo else 'takes nothing more'}{rest}")

    # What the farm says

    async def _hear_farm(self) -> None:
        def lost(reason: str) -> None:
            self._set(hearing.lost(self._state, f"{reason}; trying again"))

        async with self._client.watch_farm(lost) as watch:
            async for change in watch:
                if change["whole"]:
                    self._start(self._ask_for_the_active)
                self._set(hearing.farm(self._state, change))

    async def _hear_farm_events(self) -> None:
        # Whole pages first: what counts are the newest.
        from_seq, wait = 1, 0.0
        while True:
            try:
                page = await self._client.farm_events(from_seq, limit=STRETCH, wait=wait)
            except NotAllowed as error:
                # A token of narrow reach: all else goes on.
                told = {"type": "not_allowed", "text": str(error), "time": rfc3339(now())}
                self._set(hearing.farm_events(self._state, [told]))
                return
            from_seq, wait = page["next_seq"], 0.0 if len(page["events"]) == STRETCH else 25.0
            self._set(hearing.farm_events(self._state, page["events"]))

    async def _ask_for_the_active(self) -> None:
        """The farm's feed tells of the newest jobs; one that has run or waited for long may not be among them."""
        page = await self._client.jobs((*ACTIVE, *WAITING), limit=500)
        self._set(hearing.jobs(self._state, page["jobs"]))

    async def _look_after_the_old(self) -> None:
        """Jobs that have not ended and that the feed does not tell of: what runs now, at once; of the others some, in
        turn, those first that ran and do so no more."""
        turn = 0
        asked: dict[str, int] = {}
        while True:
            await trio.sleep(ACTIVE_SECONDS)
            jobs = sorted(self._state.jobs.values(), key=lambda job: str(job["created_at"]), reverse=True)
            old = [job for job in jobs[_FED:] if job["state"] in (*ACTIVE, *WAITING)]
            if not old:
                continue
            try:
                running = (await self._client.jobs(ACTIVE, limit=500))["jobs"]
                self._set(hearing.jobs(self._state, running))
                seen = {job["id"] for job in running}
                turn += 1
                rest = hearing.in_turn([job for job in old if job["id"] not in seen], asked)
                asked = {job["id"]: asked.get(job["id"], 0) for job in rest}
                asked |= {job["id"]: turn for job in rest[:_ASKED]}
                for job in rest[:_ASKED]:
                    self._set(hearing.jobs(self._state, [await self._client.job(job["id"])]))
            except BlacktreeError:
                continue

    # One job

    def _open(self, job_id: str) -> None:
        self._page_scope.cancel()
        self._page_scope = trio.CancelScope()
        self._nursery.start_soon(self._hear_job, job_id, self._page_scope)

    async def _hear_job(self, job_id: str, scope: trio.CancelScope) -> None:
        with scope:
            try:
                end = await end_of_log(self._client, job_id)
                first = max(1, end - STRETCH)
                async with self._client.watch(job_id, first) as watch:
                    self._page(job_id, lambda page: hearing.opened(page, watch.job, first))
                    async for batch in watch:
                        self._page(job_id, partial(hearing.printed, events=batch.events))
                        await trio.lowlevel.checkpoint()
                    self._page(job_id, lambda page: hearing.ended(page, watch.job))
            except BlacktreeError as error:
                text = str(error)
                self._page(job_id, lambda page: replace(page, failed=text))

    def _page(self, job_id: str, change: Callable[[JobPage], JobPage]) -> None:
        page = self._state.page
        if page is not None and page.id == job_id:
            self._set(replace(self._state, page=change(page)))

    async def _fetch(self, wish: Wish) -> None:
        """A stretch before or from `number` on, whole."""
        first = wish.number if wish.what == "newer" else max(1, wish.number - STRETCH)
        until = wish.number + STRETCH if wish.what == "newer" else wish.number
        events: list[dict[str, Any]] = []
        try:
            at = first
            while at < until:
                found = await self._client.events(wish.subject, at, limit=until - at)
                if not found["events"]:
                    break
                events += found["events"]
                at = found["next_seq"]
        except BlacktreeError as error:
            self._tell(str(error))
        self._page(wish.subject, lambda page: hearing.fetched(page, events, first))
