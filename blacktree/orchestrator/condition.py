"""How the daemon stands: starting, ready, degraded or draining, and why."""

from collections.abc import Callable
from typing import Any

import trio

from blacktree.broker.base import Broker
from blacktree.concurrency.every import every
from blacktree.concurrency.loopdelay import loop_delay
from blacktree.concurrency.notify import notify, watchdog_seconds
from blacktree.job import JobState
from blacktree.orchestrator.control import Readiness
from blacktree.orchestrator.held import Book
from blacktree.orchestrator.intake import Intake
from blacktree.orchestrator.jobs import Jobs
from blacktree.orchestrator.journal import Journal
from blacktree.orchestrator.losses import Losses
from blacktree.orchestrator.relay import Relay
from blacktree.orchestrator.workers import Workers
from blacktree.storage.base import Store

LOOK_SECONDS = 1.0


class Condition:
    """Readiness, the watchdog's heartbeat, and the figures for `/metrics`."""

    def __init__(self, store: Store, broker: Broker, journal: Journal) -> None:
        self._store = store
        self._broker = broker
        self._journal = journal
        self._store_trouble = ""
        self._intake: Intake | None = None
        self._figures: dict[str, Any] = {}
        self.phase = "starting"
        self.more: list[Callable[[], list[str]]] = []
        """Further reasons for being degraded."""
        self.loop_delay = loop_delay()

    def set(self, phase: str) -> None:
        """`starting`, `ready` or `draining`."""
        self.phase = phase
        self._journal.touch()

    def readiness(self) -> Readiness:
        """See `Control.readiness`."""
        reasons = []
        if self.phase == "draining":
            reasons.append("shutting down: running builds end or go back to the queue")
        if self.phase == "starting":
            reasons.append("starting")
        status = self._broker.status()
        if not status.connected:
            reasons.append(f"broker: {status.reason or 'not connected'}")
        if self._store_trouble:
            reasons.append(f"store: {self._store_trouble}")
        if self._intake is not None:
            reasons += self._intake.refusals
        for ask in self.more:
            reasons += ask()
        state = self.phase
        if state == "ready" and reasons:
            state = "degraded"
        return Readiness(state=state, reasons=reasons)

    async def run(self, intake: Intake, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look at the store every second; tell systemd that the loop turns and how the farm stands."""
        self._intake = intake
        watchdog = watchdog_seconds()
        told = ""
        before = self.readiness()
        task_status.started()
        async for _ in every(LOOK_SECONDS):
            self._store_trouble = await self._store.health()
            ready = self.readiness()
            if ready != before:
                before = ready
                self._journal.touch()
            text = f"STATUS={ready.state}" + (f": {'; '.join(ready.reasons)}" if ready.reasons else "")
            if text != told:
                notify(text)
                told = text
            # A store that hangs hangs this loop too, and then the watchdog is right to bite.
            if watchdog:
                notify("WATCHDOG=1")


def figures(
    *,
    book: Book,
    jobs: Jobs,
    journal: Journal,
    losses: Losses,
    relay: Relay,
    workers: Workers,
    broker: Broker,
    condition: Condition,
) -> dict[str, Any]:
    """Numbers by metric name; a dict is one value per label."""
    views = workers.views()
    lags, status = journal.lags, broker.status()
    states = {state: sum(view.state == state for view in views) for state in ("free", "busy", "draining", "dead")}
    return {
        "jobs": {str(state): journal.counts.get(state, 0) for state in JobState},
        "jobs_ended_total": dict(journal.ended),
        "attempts_held": len(book),
        "hand_offs_total": jobs.handed_off,
        "hand_offs_refused_total": jobs.refused,
        "leases_lost_total": workers.leases_lost,
        "attempts_lost_total": losses.lost,
        "commits_total": journal.commits,
        "published_total": relay.published,
        "log_readers": journal.readers,
        "log_readers_behind": sum(lag > 0 for lag in lags),
        "log_reader_lag_events": max(lags, default=0),
        "workers": states,
        "slots": sum(view.slots for view in views if view.state != "dead"),
        "slots_busy": sum(view.busy for view in views if view.state != "dead"),
        "broker_connected": int(status.connected),
        "broker_reconnects_total": max(0, status.sessions - 1),
        "ready": int(condition.readiness().state == "ready"),
        "event_loop_delay_seconds": condition.loop_delay,
    }
