"""What `top` knows and shows: values only. Feeds and keys make the next one, the picture is drawn from it."""

from typing import Any, NamedTuple

import msgspec

Job = dict[str, Any]
Worker = dict[str, Any]

ACTIVE = ("running", "canceling", "assigned")
WAITING = ("queued",)
VIEWS = ("jobs", "farm")


class Line(NamedTuple):
    """One line of a job's log. `kind`: `log`, `head` (a step), `note`, `state`, `bad` (a step that failed)."""

    seq: int
    time: str
    kind: str
    text: str


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A step of the current attempt, as far as it got."""

    attempt: int
    step: str
    name: str
    began: str = ""
    cached: bool = False
    seconds: float | None = None
    ok: bool | None = None
    progress: str = ""


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a log without a gap: events `first` to `next`, of which some are lines; the job is at `end`.

    While `next` is behind `end` what is printed now is not kept: the reader is somewhere else.
    """

    lines: tuple[Line, ...] = ()
    first: int = 1
    next: int = 1
    end: int = 1
    asking: bool = False


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """The job that is looked at. `anchor` is the number of the lowest line in sight; None follows what is printed."""

    id: str
    job: Job = {}
    steps: tuple[Step, ...] = ()
    log: Log = Log()
    anchor: int | None = None
    wrap: bool = False
    times: bool = False
    ready: bool = False
    failed: str = ""


class Wish(NamedTuple):
    """Something to be done that is no matter of the state alone.

    `quit`, `suspend`, `redraw` · `open`, `close` a job's page · `cancel`, `retry` a job · `drain`, `undrain` a worker ·
    `older`, `newer` stretches of a log from `number` on · `end` of the log.
    """

    what: str
    subject: str = ""
    number: int = 0


class State(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `trouble` says why the farm is not heard just now; `lost` counts how often that was so."""

    server: str
    width: int = 80
    height: int = 24
    view: str = "jobs"
    trouble: str = "connecting"
    lost: int = 0
    jobs: dict[str, Job] = {}
    workers: tuple[Worker, ...] = ()
    queue: dict[str, Any] = {}
    events: tuple[dict[str, Any], ...] = ()
    chosen_job: str = ""
    chosen_worker: str = ""
    words: str = ""
    typing: bool = False
    help: bool = False
    asked: Wish | None = None
    message: str = ""
    page: JobPage | None = None

    def listed(self) -> list[Job]:
        """The jobs that the filter lets through: what runs, what waits, what has ended; newest first."""
        words = self.words.lower().split()
        found = [job for job in self.jobs.values() if all(word in _searched(job) for word in words)]
        found.sort(key=lambda job: str(job["created_at"]), reverse=True)
        return sorted(found, key=_rank)

    def job_at(self) -> Job | None:
        """The job that a key means: the page's, or the chosen one of the list."""
        if self.page is not None:
            return self.page.job or self.jobs.get(self.page.id)
        listed = self.listed()
        return next((job for job in listed if job["id"] == self.chosen_job), listed[0] if listed else None)

    def worker_at(self) -> Worker | None:
        """The chosen worker."""
        found = (worker for worker in self.workers if worker["id"] == self.chosen_worker)
        return next(found, self.workers[0] if self.workers else None)


def _rank(job: Job) -> int:
    return 0 if job["state"] in ACTIVE else 1 if job["state"] in WAITING else 2


def _searched(job: Job) -> str:
    spec = job["spec"]
    parts = [job["id"], job["state"], spec["repository"], spec.get("ref"), job.get("commit"), job.get("worker_id")]
    return " ".join(str(part) for part in (*parts, spec.get("image"), spec.get("pool")) if part).lower()
