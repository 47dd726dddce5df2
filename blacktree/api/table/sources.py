"""Sources and the webhooks that bring them news."""

from typing import Any

from blacktree.api import messages, shapes
from blacktree.api import sources as asked
from blacktree.api.changes import SourceChanges
from blacktree.api.table.operation import Concerns, Http, Operation, Socket
from blacktree.role import Role
from blacktree.source import Source

_ALL = "/api/v1/sources"
_ONE = f"{_ALL}/{{name}}"
_CHANGES = ("not_found", "conflict", "source_damaged", "source_configured", "invalid", "malformed", "storage_failed")
_HOOK = "A forge's delivery, let in by its signature."
_HOOK_ERRORS = (
    "signature_missing",
    "signature_wrong",
    "source_required",
    "not_found",
    "malformed",
    "bad_request",
    "too_many_deliveries",
    "storage_failed",
)
_FORMS = ("application/json", "application/x-www-form-urlencoded")

SOURCES = (
    Operation(
        name="source.add",
        summary="Declare a source: a repository whose webhooks become jobs.",
        role=Role.ADMIN,
        concerns=Concerns.SOURCE,
        errors=(
            "conflict",
            "invalid",
            "malformed",
            "repository_refused",
            "credentials_in_address",
            "local_source_refused",
            "source_is_ourselves",
            "storage_failed",
        ),
        result=shapes.SourceView,
        http=Http(verb="POST", path=_ALL, body=Source, required=True, statuses=(201,)),
        socket=Socket(params=Source),
    ),
    Operation(
        name="source.list",
        summary="All sources, by name.",
        role=Role.VIEW,
        concerns=Concerns.EACH,
        errors=("bad_query", "invalid"),
        result=shapes.Sources,
        http=Http(verb="GET", path=_ALL, query=messages.Nothing),
        socket=Socket(params=messages.Nothing),
    ),
    Operation(
        name="source.get",
        summary="One source.",
        role=Role.VIEW,
        concerns=Concerns.SOURCE,
        errors=("not_found", "bad_query", "invalid"),
        result=shapes.SourceView,
        http=Http(verb="GET", path=_ONE, query=messages.Nothing),
        socket=Socket(params=asked.SourceByName),
    ),
    Operation(
        name="source.edit",
        summary="Replace some of a source's fields.",
        role=Role.ADMIN,
        concerns=Concerns.SOURCE,
        errors=_CHANGES,
        result=shapes.SourceView,
        http=Http(verb="PATCH", path=_ONE, body=SourceChanges, required=True),
        socket=Socket(params=asked.EditSource),
    ),
    Operation(
        name="source.remove",
        summary="Forget a source; answers what it was. Its jobs go on.",
        role=Role.ADMIN,
        concerns=Concerns.SOURCE,
        errors=_CHANGES,
        result=shapes.SourceView,
        http=Http(verb="DELETE", path=_ONE),
        socket=Socket(params=asked.SourceByName),
    ),
    Operation(
        name="webhook.receive",
        summary=_HOOK,
        role=Role.NONE,
        errors=_HOOK_ERRORS,
        result=shapes.Receipt,
        http=Http(
            verb="POST",
            path="/api/v1/webhooks/{forge}",
            body=dict[str, Any],
            required=True,
            takes=_FORMS,
            statuses=(202, 200),
        ),
    ),
    Operation(
        name="webhook.receive.source",
        summary=_HOOK + " For one source alone.",
        role=Role.NONE,
        errors=_HOOK_ERRORS,
        result=shapes.Receipt,
        http=Http(
            verb="POST",
            path="/api/v1/webhooks/{forge}/{source}",
            body=dict[str, Any],
            required=True,
            takes=_FORMS,
            statuses=(202, 200),
        ),
    ),
)
