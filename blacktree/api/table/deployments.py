"""Deployments: what is kept running."""

from blacktree.api import deploymentlog as log
from blacktree.api import deployments as asked
from blacktree.api import messages, shapes
from blacktree.api.table.jobs import EventsQuery, OutlineQuery, SearchQuery
from blacktree.api.table.operation import Concerns, Http, Notification, Operation, Socket
from blacktree.deployment import DeployImage
from blacktree.role import Role

_ALL = "/api/v1/deployments"
_ONE = f"{_ALL}/{{name}}"
_CHANGES = ("not_found", "conflict", "busy", "invalid", "malformed", "storage_failed")

DEPLOYMENTS = (
    Operation(
        name="deployment.deploy",
        summary="A new version of a deployment: of an image, or of what a job with `run` will build.",
        role=Role.SUBMIT,
        concerns=Concerns.SPEC,
        errors=(
            "invalid",
            "malformed",
            "repository_refused",
            "credentials_in_address",
            "local_source_refused",
            "unknown_secret",
            "conflict",
            "port_taken",
            "busy",
            "too_large",
            "worker_full",
            "draining",
            "storage_failed",
        ),
        result=shapes.Deployed,
        http=Http(
            verb="POST", path=_ALL, body=(DeployImage, asked.DeployJob), required=True, statuses=(201, 200), keyed=True
        ),
        socket=Socket(params=(DeployImage, asked.DeployJob)),
    ),
    Operation(
        name="deployment.list",
        summary="All deployments, by name.",
        role=Role.VIEW,
        concerns=Concerns.EACH,
        errors=("bad_query", "invalid"),
        result=shapes.Deployments,
        http=Http(verb="GET", path=_ALL, query=messages.Nothing),
        socket=Socket(params=messages.Nothing),
    ),
    Operation(
        name="deployment.get",
        summary="One deployment.",
        role=Role.VIEW,
        concerns=Concerns.DEPLOYMENT,
        errors=("not_found", "bad_query", "invalid"),
        result=shapes.Deployment,
        http=Http(verb="GET", path=_ONE, query=messages.Nothing),
        socket=Socket(params=asked.ByName),
    ),
    Operation(
        name="deployment.stop",
        summary="Stop it; answers when its containers are gone, or after a minute.",
        role=Role.SUBMIT,
        concerns=Concerns.DEPLOYMENT,
        errors=_CHANGES,
        result=shapes.Deployment,
        http=Http(verb="POST", path=f"{_ONE}/stop", body=messages.Nothing),
        socket=Socket(params=asked.ByName),
    ),
    Operation(
        name="deployment.restart",
        summary="New containers for what serves; a stopped one starts its last version.",
        role=Role.SUBMIT,
        concerns=Concerns.DEPLOYMENT,
        errors=(*_CHANGES, "nothing_to_start"),
        result=shapes.Deployment,
        http=Http(verb="POST", path=f"{_ONE}/restart", body=messages.Nothing),
        socket=Socket(params=asked.ByName),
    ),
    Operation(
        name="deployment.rollback",
        summary="A new version like an earlier one: the one that ran before, or the one of this number.",
        role=Role.SUBMIT,
        concerns=Concerns.DEPLOYMENT,
        errors=(*_CHANGES, "nothing_earlier", "not_built"),
        result=shapes.Deployed,
        http=Http(verb="POST", path=f"{_ONE}/rollback", body=asked.RollbackBody, statuses=(201,)),
        socket=Socket(params=asked.Rollback),
    ),
    Operation(
        name="deployment.delete",
        summary="Forget one that is stopped, with its log; answers what it was. Also its own run secrets, if asked.",
        role=Role.ADMIN,
        concerns=Concerns.DEPLOYMENT,
        errors=(*_CHANGES, "not_stopped", "busy", "bad_query"),
        result=shapes.Deployment,
        http=Http(verb="DELETE", path=_ONE, query=asked.DeleteQuery),
        socket=Socket(params=asked.Delete),
    ),
    Operation(
        name="deployment.events",
        summary="The events of its log from a number on; an empty list past the end.",
        role=Role.VIEW,
        concerns=Concerns.DEPLOYMENT,
        errors=("not_found", "bad_query", "invalid"),
        result=shapes.DeploymentEventPage,
        http=Http(verb="GET", path=f"{_ONE}/events", query=EventsQuery, statuses=(200, 304)),
        socket=Socket(params=log.ReadLog),
    ),
    Operation(
        name="deployment.search",
        summary="Look through its log, as far as it is kept, a stretch at a time; `next_seq` is where to go on.",
        role=Role.VIEW,
        concerns=Concerns.DEPLOYMENT,
        errors=("not_found", "bad_query", "bad_request", "invalid"),
        result=shapes.Hits,
        http=Http(verb="GET", path=f"{_ONE}/search", query=SearchQuery),
        socket=Socket(params=log.Search),
    ),
    Operation(
        name="deployment.outline",
        summary="Where each replica's output lies in its log, a stretch at a time.",
        role=Role.VIEW,
        concerns=Concerns.DEPLOYMENT,
        errors=("not_found", "bad_query", "invalid"),
        result=shapes.Outline,
        http=Http(verb="GET", path=f"{_ONE}/outline", query=OutlineQuery),
        socket=Socket(params=log.AskOutline),
    ),
    Operation(
        name="deployment.log",
        summary="What its containers print, plain, as far as it is kept, or a range of its bytes.",
        role=Role.VIEW,
        concerns=Concerns.DEPLOYMENT,
        errors=("not_found", "bad_query", "bad_range", "log_gone"),
        http=Http(verb="GET", path=f"{_ONE}/log", query=messages.Nothing, statuses=(200, 206, 304), media="text/plain"),
    ),
    Operation(
        name="deployment.watch",
        summary="A deployment and the events of its log from a number on, without end.",
        role=Role.VIEW,
        concerns=Concerns.DEPLOYMENT,
        errors=("not_found", "invalid", "too_many_watches"),
        result=shapes.DeploymentWatched,
        socket=Socket(
            params=log.Watch,
            notifications=(
                Notification(name="deployment.events", params=shapes.JobEvents, summary="Events, batched, in order."),
                Notification(
                    name="deployment.changed", params=shapes.DeploymentChanged, summary="The deployment has changed."
                ),
                Notification(name="watch.failed", params=shapes.WatchFailed, summary="The watch has ended early."),
            ),
        ),
    ),
    Operation(
        name="deployment.unwatch",
        summary="End a watch of a deployment.",
        role=Role.VIEW,
        errors=("not_found", "invalid"),
        result=shapes.Empty,
        socket=Socket(params=messages.Unwatch),
    ),
)
