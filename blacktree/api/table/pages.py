"""Pages, probes and figures: what is no part of `/api/v1`."""

from typing import Any

from blacktree.api import messages, shapes
from blacktree.api.table.operation import Http, Operation
from blacktree.role import Role

PAGES = (
    Operation(
        name="probe.health",
        summary="The process answers.",
        role=Role.NONE,
        result=shapes.Alive,
        http=Http(verb="GET", path="/healthz"),
    ),
    Operation(
        name="probe.ready",
        summary="Whether the farm does all that it is there for; 503 while it does not.",
        role=Role.NONE,
        result=shapes.Ready,
        http=Http(verb="GET", path="/readyz", statuses=(200, 503)),
    ),
    Operation(
        name="probe.metrics",
        summary="Figures in Prometheus' text format.",
        role=Role.VIEW,
        farm=True,
        http=Http(verb="GET", path="/metrics", media="text/plain"),
    ),
    Operation(
        name="api.openapi",
        summary="This side's description, as OpenAPI 3.1.",
        role=Role.VIEW,
        result=dict[str, Any],
        http=Http(verb="GET", path="/api/v1/openapi.json", query=messages.Nothing),
    ),
    Operation(
        name="api.asyncapi",
        summary="The websocket's description, as AsyncAPI 3.0.",
        role=Role.VIEW,
        result=dict[str, Any],
        http=Http(verb="GET", path="/api/v1/asyncapi.json", query=messages.Nothing),
    ),
    Operation(
        name="page.home",
        summary="The viewer.",
        role=Role.VIEW,
        http=Http(verb="GET", path="/", media="text/html"),
    ),
    Operation(
        name="page.asset",
        summary="A file of the viewer.",
        role=Role.VIEW,
        errors=("not_found",),
        http=Http(verb="GET", path="/viewer/{version}/{name}", media="*/*"),
    ),
    Operation(
        name="page.login",
        summary="Where a browser is let in.",
        role=Role.NONE,
        http=Http(verb="GET", path="/login", media="text/html", statuses=(200, 303, 401)),
    ),
    Operation(
        name="page.login.form",
        summary="The form of that page: a token or a one-time code.",
        role=Role.NONE,
        http=Http(
            verb="POST",
            path="/login",
            takes=("application/x-www-form-urlencoded",),
            media="text/html",
            statuses=(303, 401),
        ),
    ),
    Operation(
        name="page.websocket",
        summary="The websocket; asked for anything else, it says so.",
        role=Role.VIEW,
        errors=("upgrade_required",),
        http=Http(verb="GET", path="/ws", statuses=(101,)),
    ),
)
