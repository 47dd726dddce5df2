"""Targets of notifications: an admin's alone, because their addresses may bear tokens."""

from blacktree.api import messages, shapes
from blacktree.api import notify as asked
from blacktree.api.changes import TargetChanges
from blacktree.api.table.operation import Http, Operation, Socket
from blacktree.notification import Target
from blacktree.orchestrator.notifycontrol import Tried
from blacktree.role import Role

_ALL = "/api/v1/notify"
_ONE = f"{_ALL}/{{name}}"
_CHANGES = ("not_found", "conflict", "target_configured", "invalid", "malformed", "storage_failed")

NOTIFY = (
    Operation(
        name="notify.add",
        summary="Declare a target: an address that is told what happens.",
        role=Role.ADMIN,
        farm=True,
        errors=("conflict", "invalid", "malformed", "bad_request", "credentials_in_address", "storage_failed"),
        result=shapes.TargetView,
        http=Http(verb="POST", path=_ALL, body=Target, required=True, statuses=(201,)),
        socket=Socket(params=Target),
    ),
    Operation(
        name="notify.list",
        summary="All targets, by name.",
        role=Role.ADMIN,
        farm=True,
        errors=("bad_query", "invalid"),
        result=shapes.Targets,
        http=Http(verb="GET", path=_ALL, query=messages.Nothing),
        socket=Socket(params=messages.Nothing),
    ),
    Operation(
        name="notify.get",
        summary="One target.",
        role=Role.ADMIN,
        farm=True,
        errors=("not_found", "bad_query", "invalid"),
        result=shapes.TargetView,
        http=Http(verb="GET", path=_ONE, query=messages.Nothing),
        socket=Socket(params=asked.ByName),
    ),
    Operation(
        name="notify.edit",
        summary="Replace some of a target's fields; what waits for it is tried at once.",
        role=Role.ADMIN,
        farm=True,
        errors=(*_CHANGES, "bad_request", "credentials_in_address"),
        result=shapes.TargetView,
        http=Http(verb="PATCH", path=_ONE, body=TargetChanges, required=True),
        socket=Socket(params=asked.Edit),
    ),
    Operation(
        name="notify.remove",
        summary="Forget a target and what waits for it; answers what it was.",
        role=Role.ADMIN,
        farm=True,
        errors=_CHANGES,
        result=shapes.TargetView,
        http=Http(verb="DELETE", path=_ONE),
        socket=Socket(params=asked.ByName),
    ),
    Operation(
        name="notify.log",
        summary="The last tries to deliver to a target, newest first.",
        role=Role.ADMIN,
        farm=True,
        errors=("not_found", "bad_query", "invalid"),
        result=shapes.DeliveryLog,
        http=Http(verb="GET", path=f"{_ONE}/deliveries", query=messages.Nothing),
        socket=Socket(params=asked.ByName),
    ),
    Operation(
        name="notify.test",
        summary="Send a target one message of type `notify.test` now, and answer how that went.",
        role=Role.ADMIN,
        farm=True,
        errors=("not_found", "invalid", "malformed", "storage_failed"),
        result=Tried,
        http=Http(verb="POST", path=f"{_ONE}/test", body=messages.Nothing),
        socket=Socket(params=asked.ByName),
    ),
)
