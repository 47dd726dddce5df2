"""What a forge is told of a job, and how its answers are taken. Pure."""

import random
from collections.abc import Mapping

from blacktree.clock import now
from blacktree.job import Job, JobState, Origin

_S = JobState
_ENDS = {
    _S.SUCCEEDED: ("success", "built"),
    _S.FAILED: ("failure", "failed"),
    _S.CANCELED: ("canceled", "canceled"),
    _S.TIMED_OUT: ("error", "took too long"),
    _S.LOST: ("error", "lost with its worker"),
}


class Later(Exception):
    """The forge does not take it now; `seconds`: when it asked us to come again."""

    def __init__(self, why: str, seconds: float = 0.0) -> None:
        super().__init__(why)
        self.seconds = seconds


class Refused(Exception):
    """The forge will never take it."""


def context_of(origin: Origin) -> str:
    """What the status is called at the commit: builds of a branch and of a pull request stand beside each other."""
    return f"blacktree/{origin.source}" + ("/pull-request" if origin.pull_request is not None else "")


def next_state(sent: str, job: Job, *, begun: bool) -> str | None:
    """What the forge is to be told next of this job; None: nothing now; an empty text: nothing any more.

    The first word is `pending`, also about a job that has ended meanwhile; only one that made way for a newer commit
    before anything was said is passed over. `begun`: something may have been said, though we know of nothing; then it
    hears the end.
    """
    if not sent and job.state is _S.CANCELED and job.started_at is None:
        return _ENDS[job.state][0] if begun else ""
    if not sent:
        return "pending"
    if job.ended:
        return _ENDS[job.state][0]
    if sent == "pending" and job.state in (_S.RUNNING, _S.CANCELING):
        return "running"
    return None


def is_last(state: str) -> bool:
    """Whether nothing follows this one."""
    return state not in ("pending", "running")


def describe(job: Job, state: str) -> str:
    """A few words for the forge's page."""
    if state == "pending":
        return "waiting for a worker"
    if state == "running":
        return f"building on {job.worker_id}" if job.worker_id else "building"
    words = _ENDS[job.state][1]
    if job.state is _S.CANCELED:
        return f"{words}: {job.cancel_reason}" if job.cancel_reason else words
    if job.state is _S.SUCCEEDED:
        seconds = ((job.finished_at or now()) - (job.started_at or job.created_at)).total_seconds()
        return f"{words} in {seconds:.0f} s"
    return f"{words}: {job.error.message}" if job.error else words


def judge(status: int, headers: Mapping[str, str], text: str) -> None:
    """Nothing if the forge has taken it; `headers` by lower-case name. Raises `Later` or `Refused`."""
    if 200 <= status < 300:
        return
    said = f"HTTP {status}: {' '.join(text.split())[:300]}"
    # GitLab: the commit bears this state already.
    if status == 400 and "Cannot transition status" in text:
        return
    limited = status == 403 and ("retry-after" in headers or headers.get("x-ratelimit-remaining") == "0")
    if status in (408, 425, 429) or status >= 500 or limited:
        raise Later(said, _retry_after(headers))
    raise Refused(said)


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0


def backoff_seconds(failures: int, first: float, limit: float) -> float:
    """Exponential, with jitter: between half and all of first * 2^(failures-1)."""
    return min(limit, first * float(1 << min(failures - 1, 30))) * random.uniform(0.5, 1.0)
