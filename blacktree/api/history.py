"""How the last hours went: jobs ended and how long they waited, by equal parts of the time."""

import math
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import trio

from blacktree.clock import now
from blacktree.job import Job, JobState
from blacktree.orchestrator.control import Control

MOST_JOBS = 20_000
KEEP_SECONDS = 5.0
_SECONDS = 2.0
_PAGE = 500
# A job that ended within the window was made at most so long before it, or is left out.
_SLACK = timedelta(hours=2)


class AskHistory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`farm.history`."""

    hours: float = 3.0
    bins: int = 36


class History:
    """Computed once in some seconds for all who ask."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._kept: dict[AskHistory, tuple[float, dict[str, Any]]] = {}
        self._lock = trio.Lock()

    async def get(self, asked: AskHistory) -> dict[str, Any]:
        """`{"end", "bin_seconds", "complete", "bins": [{"succeeded", "failed", "started", "wait_p50", "wait_p90"}]}`.

        Bins are oldest first; `failed` counts every other end; waits are seconds, null where nothing started.
        `complete`: no job was left out.
        """
        asked = AskHistory(hours=max(0.1, min(asked.hours, 48.0)), bins=max(1, min(asked.bins, 200)))
        async with self._lock:
            at, kept = self._kept.get(asked, (-math.inf, {}))
            if trio.current_time() - at > KEEP_SECONDS:
                kept = await self._look(asked)
                if len(self._kept) > 16:
                    self._kept.clear()
                self._kept[asked] = trio.current_time(), kept
            return kept

    async def _look(self, asked: AskHistory) -> dict[str, Any]:
        end = now()
        begin = end - timedelta(hours=asked.hours)
        jobs: list[Job] = []
        cursor: str | None = None
        complete = False
        deadline = trio.current_time() + _SECONDS
        while not complete and len(jobs) < MOST_JOBS and trio.current_time() < deadline:
            page = await self._control.jobs((), limit=_PAGE, cursor=cursor)
            jobs += [view.job for view in page.jobs]
            cursor = page.cursor
            complete = cursor is None or (bool(jobs) and jobs[-1].created_at < begin - _SLACK)
        width = timedelta(hours=asked.hours) / asked.bins
        bins = binned(jobs, begin, width, asked.bins)
        return {"end": end, "bin_seconds": width.total_seconds(), "complete": complete, "bins": bins}


def binned(jobs: Iterable[Job], begin: datetime, width: timedelta, bins: int) -> list[dict[str, Any]]:
    """Jobs that ended or started, by parts of the time from `begin` on."""
    good, bad = [0] * bins, [0] * bins
    waits: list[list[float]] = [[] for _ in range(bins)]
    for job in jobs:
        if job.finished_at is not None and 0 <= (at := (job.finished_at - begin) // width) < bins:
            (good if job.state is JobState.SUCCEEDED else bad)[at] += 1
        if job.started_at is not None and 0 <= (at := (job.started_at - begin) // width) < bins:
            waits[at].append(max(0.0, (job.started_at - job.created_at).total_seconds()))
    return [
        {
            "succeeded": good[index],
            "failed": bad[index],
            "started": len(waits[index]),
            "wait_p50": percentile(waits[index], 0.5),
            "wait_p90": percentile(waits[index], 0.9),
        }
        for index in range(bins)
    ]


def percentile(values: list[float], part: float) -> float | None:
    """Nearest rank; None of nothing.

    >>> percentile([4, 1, 3, 2], 0.5), percentile([7], 0.9), percentile([], 0.5)
    (2, 7, None)
    """
    return sorted(values)[max(0, math.ceil(len(values) * part) - 1)] if values else None
