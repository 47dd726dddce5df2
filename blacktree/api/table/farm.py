"""The farm itself: its workers, its events, how it stands."""

import msgspec

from blacktree.api import messages, shapes
from blacktree.api.history import AskHistory
from blacktree.api.table.operation import Concerns, Http, Notification, Operation, Socket
from blacktree.orchestrator.control import WorkerView
from blacktree.role import Role


class FarmEventsQuery(msgspec.Struct, frozen=True):
    """`limit` is moved into 1 to 10,000. `wait`: so many seconds, at most 30, for the first, if there is none yet."""

    from_seq: int = 1
    limit: int = 1000
    wait: int = 0


FARM = (
    Operation(
        name="worker.list",
        summary="The pool.",
        role=Role.VIEW,
        errors=("bad_query", "invalid"),
        result=shapes.Workers,
        http=Http(verb="GET", path="/api/v1/workers", query=messages.Nothing),
        socket=Socket(params=messages.Nothing),
    ),
    Operation(
        name="worker.drain",
        summary="Let a worker finish what it has and take nothing more, or (`drain` false) again.",
        role=Role.ADMIN,
        farm=True,
        errors=("not_found", "invalid", "malformed", "storage_failed"),
        result=WorkerView,
        http=Http(verb="POST", path="/api/v1/workers/{id}/drain", body=messages.Drain),
        socket=Socket(params=messages.DrainWorker),
    ),
    Operation(
        name="farm.events",
        summary="The farm's own events from a number on: workers joined, broker lost, start, shutdown.",
        role=Role.VIEW,
        errors=("bad_query", "invalid"),
        result=shapes.FarmEventPage,
        http=Http(verb="GET", path="/api/v1/events", query=FarmEventsQuery),
        socket=Socket(params=messages.FarmEvents),
    ),
    Operation(
        name="farm.info",
        summary="The orchestrator's version and how it stands.",
        role=Role.VIEW,
        errors=("invalid",),
        result=shapes.FarmInfo,
        socket=Socket(params=messages.Nothing),
    ),
    Operation(
        name="farm.history",
        summary="How the last hours went: jobs ended and how long they waited, by equal parts of the time.",
        role=Role.VIEW,
        errors=("invalid",),
        result=shapes.History,
        socket=Socket(params=AskHistory),
    ),
    Operation(
        name="farm.watch",
        summary="The newest jobs, the workers and the queue, and then what changes.",
        role=Role.VIEW,
        concerns=Concerns.EACH,
        errors=("invalid", "too_many_watches"),
        result=shapes.FarmWatched,
        socket=Socket(
            params=messages.Nothing,
            notifications=(
                Notification(name="farm.changed", params=shapes.FarmChanged, summary="What has changed."),
                Notification(name="watch.failed", params=shapes.WatchFailed, summary="The watch has ended early."),
            ),
        ),
    ),
    Operation(
        name="farm.unwatch",
        summary="End a watch of the farm.",
        role=Role.VIEW,
        errors=("not_found", "invalid"),
        result=shapes.Empty,
        socket=Socket(params=messages.Unwatch),
    ),
)
