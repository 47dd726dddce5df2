"""The table of what the door can be asked: whole, unambiguous, and true to the values behind it."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import Response

from blacktree.api import shapes
from blacktree.api.changes import SourceChanges, TargetChanges
from blacktree.api.table import METHODS, OPERATIONS, ROUTES
from blacktree.api.trail import Trail
from blacktree.api.wiring import check_methods, routes_of
from blacktree.deployment import Version
from blacktree.errors import Broken
from blacktree.job import Attempt, Job
from blacktree.notification import Target
from blacktree.orchestrator.audit import Audit
from blacktree.role import Role
from blacktree.source import Source
from blacktree.storage.memory import MemoryStore

HIDDEN_OF_JOB = {"generation", "next_seq", "not_before", "stream"}
HIDDEN_OF_ATTEMPT = {"token", "incarnation", "next_batch", "stop", "unproven"}


async def nobody(request: Request) -> Response:
    return Response()


def handlers(*without: str) -> dict[str, Callable[[Request], Awaitable[Response]]]:
    return {name: nobody for name in ROUTES if name not in without}


def trail() -> Trail:
    return Trail(Audit(MemoryStore(), days=1))


def test_every_operation_can_be_asked_in_one_way_at_least() -> None:
    assert [name for name, each in OPERATIONS.items() if each.http is None and each.socket is None] == []
    places = [(each.http.verb, each.http.path) for each in ROUTES.values() if each.http is not None]
    assert len(set(places)) == len(places)


def test_what_is_open_to_everybody_is_known() -> None:
    probes = {"probe.health", "probe.ready"}
    assert {name for name, each in OPERATIONS.items() if each.role is Role.NONE} == probes | {
        "page.login",
        "page.login.form",
        "webhook.receive",
        "webhook.receive.source",
    }


def test_a_route_cannot_be_without_its_entry_nor_an_entry_without_its_handler() -> None:
    assert routes_of(handlers(), trail())
    with pytest.raises(Broken, match=r"job\.log"):
        routes_of(handlers("job.log"), trail())
    with pytest.raises(Broken, match=r"job\.burn"):
        routes_of({**handlers(), "job.burn": nobody}, trail())
    with pytest.raises(Broken, match=r"job\.get"):
        check_methods(set(METHODS) - {"job.get"})


def test_roles_are_a_ladder() -> None:
    assert [role for role in Role if Role.SUBMIT.holds(role)] == [Role.NONE, Role.VIEW, Role.SUBMIT]
    assert not Role.VIEW.holds(Role.ADMIN)


def names(kind: type[msgspec.Struct]) -> set[str]:
    return set(kind.__struct_fields__)


def test_the_shapes_have_the_fields_that_are_told() -> None:
    assert names(shapes.Job) == names(Job) - HIDDEN_OF_JOB | {"waiting"}
    assert names(shapes.Attempt) == names(Attempt) - HIDDEN_OF_ATTEMPT
    assert names(shapes.Version) == names(Version) - {"generation", "pull", "key", "asked"}


@pytest.mark.parametrize(("changes", "declared"), [(SourceChanges, Source), (TargetChanges, Target)])
def test_what_is_declared_can_be_changed_field_by_field(
    changes: type[msgspec.Struct], declared: type[msgspec.Struct]
) -> None:
    def kinds(of: type[msgspec.Struct]) -> dict[str, Any]:
        return {field.name: field.type for field in msgspec.structs.fields(of)}

    assert kinds(changes) == {name: kind | msgspec.UnsetType for name, kind in kinds(declared).items()}
