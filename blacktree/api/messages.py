"""What comes in and goes out as JSON: the parameters of each method, and the farm's values as plain objects."""

from typing import Any

import msgspec

from blacktree.api import shapes
from blacktree.event import FarmEvent
from blacktree.job import JobState
from blacktree.orchestrator.control import Found, JobView
from blacktree.told import told

MOST_JOBS = 500
MOST_EVENTS = 10_000
# Of all figures, those that a picture of the farm needs.
_FIGURES = (
    *("jobs", "jobs_ended_total", "attempts_held", "hand_offs_total", "attempts_lost_total", "commits_total"),
    *("log_readers", "slots", "slots_busy", "loop_delay_seconds"),
)
# SQLite's integers end here; a larger number from outside means "past the end" all the same.
_LARGEST = (1 << 63) - 1


class Envelope(msgspec.Struct, frozen=True):
    """A JSON-RPC request before anything in it is believed; `id` is echoed byte for byte."""

    jsonrpc: msgspec.Raw = msgspec.Raw()
    method: msgspec.Raw = msgspec.Raw()
    params: msgspec.Raw = msgspec.Raw()
    id: msgspec.Raw = msgspec.Raw()


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class ById(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`job.get`, `job.cancel`, `job.retry`."""

    id: str
    reason: str = ""


class ListJobs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`job.list`. `state` is one state or a list of them; `repository` and `text` are parts, case aside."""

    state: JobState | list[JobState] | None = None
    repository: str = ""
    text: str = ""
    pool: str = ""
    limit: int = 50
    cursor: str | None = None


class WatchJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`job.watch`."""

    id: str
    from_seq: int = 1


class Unwatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`job.unwatch`, `farm.unwatch`."""

    watch: int


class ReadEvents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`job.events`."""

    id: str
    from_seq: int = 1
    limit: int = 1000


class FarmEvents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`farm.events`; with `wait` it answers when there is one, at the latest after so many seconds."""

    from_seq: int = 1
    limit: int = 1000
    wait: float = 0.0


class DrainWorker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`worker.drain`."""

    id: str
    drain: bool = True


class Drain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /api/v1/workers/{id}/drain`."""

    drain: bool = True


class Cancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /api/v1/jobs/{id}/cancel`."""

    reason: str = ""


def clamp(value: int, least: int, most: int = _LARGEST) -> int:
    """The value, moved into the range."""
    return max(least, min(value, most))


def job_json(view: JobView) -> shapes.Job:
    """A job as everybody outside sees it."""
    return told(view.job, waiting=view.waiting)


def jobs_json(found: Found) -> shapes.JobPage:
    """A page of jobs."""
    return shapes.JobPage(jobs=[job_json(view) for view in found.jobs], cursor=found.cursor)


def farm_events_json(events: list[FarmEvent], from_seq: int) -> shapes.FarmEventPage:
    """Events of the farm; `next_seq` is where to go on."""
    return shapes.FarmEventPage(events=events, next_seq=events[-1].seq + 1 if events else from_seq)


def figures_json(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures that a viewer shows, as far as this farm has them."""
    return {name: figures[name] for name in _FIGURES if name in figures}
