"""Jobs: submitted, read, watched, ended."""

from typing import Annotated

import msgspec
from msgspec import Meta

from blacktree.api import messages, shapes
from blacktree.api.outline import AskOutline
from blacktree.api.search import MOST_HITS, Question
from blacktree.api.table.operation import Concerns, Http, Notification, Operation, Socket
from blacktree.job import JobState
from blacktree.role import Role
from blacktree.spec import JobSpec

_ONE = "/api/v1/jobs/{id}"


class ListQuery(msgspec.Struct, frozen=True):
    """`state`: any number of them, repeated or with commas between. `repository`, `text`: parts, case aside.

    `limit` is moved into 1 to 500.
    """

    state: list[JobState] = []
    repository: str = ""
    text: str = ""
    pool: str = ""
    limit: int = 50
    cursor: Annotated[str, Meta(extra_json_schema={"format": "cursor"})] = ""


class EventsQuery(msgspec.Struct, frozen=True):
    """`limit` is moved into 1 to 10,000."""

    from_seq: int = 1
    limit: int = 1000


class OutlineQuery(msgspec.Struct, frozen=True):
    """`step`: only this step's; of a deployment: this replica's, `VERSION/INDEX`."""

    step: str = ""
    from_seq: int = 1


class SearchQuery(msgspec.Struct, frozen=True):
    """Lines that contain `text`, or, with `errors` (1), that read like an error; of `step` alone, if it is given.

    `attempt`: only this one's (0: of all). Of a deployment the step is a replica, `VERSION/INDEX`, the attempt its
    version.
    """

    text: str = ""
    errors: str = ""
    step: str = ""
    attempt: int = 0
    from_seq: int = 1
    limit: int = MOST_HITS


JOBS = (
    Operation(
        name="job.submit",
        summary="Submit a job; on record when this is answered. With a key that is known, the job it stands for.",
        role=Role.SUBMIT,
        concerns=Concerns.SPEC,
        errors=(
            "invalid",
            "malformed",
            "repository_refused",
            "credentials_in_address",
            "local_source_refused",
            "too_large",
            "conflict",
            "draining",
            "storage_failed",
        ),
        result=shapes.Job,
        http=Http(verb="POST", path="/api/v1/jobs", body=JobSpec, required=True, statuses=(201, 200), keyed=True),
        socket=Socket(params=JobSpec),
    ),
    Operation(
        name="job.list",
        summary="Jobs, newest first, page by page.",
        role=Role.VIEW,
        concerns=Concerns.EACH,
        errors=("bad_query", "invalid"),
        result=shapes.JobPage,
        http=Http(verb="GET", path="/api/v1/jobs", query=ListQuery),
        socket=Socket(params=messages.ListJobs),
    ),
    Operation(
        name="job.get",
        summary="One job.",
        role=Role.VIEW,
        concerns=Concerns.JOB,
        errors=("not_found",),
        result=shapes.Job,
        http=Http(verb="GET", path=_ONE),
        socket=Socket(params=messages.ById),
    ),
    Operation(
        name="job.cancel",
        summary="End a job. Answers when it has ended, with proof; one that has ended already is no error.",
        role=Role.SUBMIT,
        concerns=Concerns.JOB,
        errors=("not_found", "invalid", "malformed", "storage_failed"),
        result=shapes.Job,
        http=Http(verb="POST", path=f"{_ONE}/cancel", body=messages.Cancel),
        socket=Socket(params=messages.ById),
    ),
    Operation(
        name="job.retry",
        summary="A new job with the spec and the commit of one that has ended.",
        role=Role.SUBMIT,
        concerns=Concerns.JOB,
        errors=(
            "not_found",
            "not_ended",
            "is_a_part",
            "conflict",
            "invalid",
            "malformed",
            "draining",
            "storage_failed",
        ),
        result=shapes.Job,
        http=Http(verb="POST", path=f"{_ONE}/retry", body=messages.Nothing, statuses=(201,)),
        socket=Socket(params=messages.ById),
    ),
    Operation(
        name="job.events",
        summary="A job's events from a number on; an empty list past the end.",
        role=Role.VIEW,
        concerns=Concerns.JOB,
        errors=("not_found", "bad_query", "invalid"),
        result=shapes.EventPage,
        http=Http(verb="GET", path=f"{_ONE}/events", query=EventsQuery, statuses=(200, 304)),
        socket=Socket(params=messages.ReadEvents),
    ),
    Operation(
        name="job.search",
        summary="Look for text in a job's whole log, or for lines that read like an error.",
        role=Role.VIEW,
        concerns=Concerns.JOB,
        errors=("not_found", "bad_query", "bad_request", "invalid"),
        result=shapes.Hits,
        http=Http(verb="GET", path=f"{_ONE}/search", query=SearchQuery),
        socket=Socket(params=Question),
    ),
    Operation(
        name="job.outline",
        summary="Where each step's output lies in a job's log, a bounded stretch of it at a time.",
        role=Role.VIEW,
        concerns=Concerns.JOB,
        errors=("not_found", "bad_query", "invalid"),
        result=shapes.Outline,
        http=Http(verb="GET", path=f"{_ONE}/outline", query=OutlineQuery),
        socket=Socket(params=AskOutline),
    ),
    Operation(
        name="job.log",
        summary="The plain log, or a range of its bytes.",
        role=Role.VIEW,
        concerns=Concerns.JOB,
        errors=("not_found", "bad_query", "bad_range", "log_gone"),
        http=Http(verb="GET", path=f"{_ONE}/log", query=messages.Nothing, statuses=(200, 206, 304), media="text/plain"),
    ),
    Operation(
        name="job.watch",
        summary="A job's events from a number on, as they happen, and its end.",
        role=Role.VIEW,
        concerns=Concerns.JOB,
        errors=("not_found", "invalid", "too_many_watches"),
        result=shapes.JobWatched,
        socket=Socket(
            params=messages.WatchJob,
            notifications=(
                Notification(name="job.events", params=shapes.JobEvents, summary="Events, batched, in order."),
                Notification(name="job.end", params=shapes.JobWatched, summary="The job has ended, and the watch."),
                Notification(name="watch.failed", params=shapes.WatchFailed, summary="The watch has ended early."),
            ),
        ),
    ),
    Operation(
        name="job.unwatch",
        summary="End a watch of a job.",
        role=Role.VIEW,
        errors=("not_found", "invalid"),
        result=shapes.Empty,
        socket=Socket(params=messages.Unwatch),
    ),
)
