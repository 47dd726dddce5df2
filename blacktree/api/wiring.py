"""Handlers and the table, joined: nothing is served that has no entry, and no entry is without a handler."""

from collections.abc import Iterable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from blacktree.api.access import check
from blacktree.api.auth import Actor
from blacktree.api.handler import Handler
from blacktree.api.negotiation import check_accept
from blacktree.api.table import METHODS, ROUTES, Operation
from blacktree.api.trail import Trail, code_of
from blacktree.errors import Broken


def admit(operation: Operation, actor: Actor | None) -> None:
    """Whether somebody may ask for this at all; which repository it is about is looked at afterwards.

    Raises `NotAllowed` (code `unauthorized`, `role_missing`, `farm_wide`).
    """
    check(operation.role, farm=operation.farm, actor=actor)


def routes_of(handlers: Mapping[str, Handler], trail: Trail) -> list[Route]:
    """One route a path, for the operations of the table that have one; whoever acts leaves a trail.

    Raises `Broken` for a gap on either side.
    """
    _compare("route", ROUTES, handlers)
    by_path: dict[str, dict[str, tuple[Operation, Handler]]] = {}
    for name, operation in ROUTES.items():
        http = operation.http
        assert http is not None
        by_path.setdefault(http.path, {})[http.verb] = (operation, handlers[name])
    return [Route(path, _by_verb(verbs, trail), methods=list(verbs)) for path, verbs in by_path.items()]


def check_methods(methods: Iterable[str]) -> None:
    """Whether these are the websocket methods of the table. Raises `Broken`."""
    _compare("websocket method", METHODS, methods)


def _by_verb(verbs: dict[str, tuple[Operation, Handler]], trail: Trail) -> Handler:
    async def chosen(request: Request) -> Response:
        operation, handler = verbs["GET" if request.method == "HEAD" else request.method]
        assert operation.http is not None
        check_accept(request.headers.get("accept"), operation.http.media)
        request.state.operation = operation
        actor = request.state.actor
        if not operation.acts or actor is None:
            admit(operation, actor)
            return await handler(request)
        target = "/".join(map(str, request.path_params.values()))
        try:
            admit(operation, actor)
            response = await handler(request)
        except BaseException as error:
            trail.left(actor, "http", operation.name, target=target, error=code_of(error))
            raise
        trail.left(actor, "http", operation.name, target=target, told=bytes(getattr(response, "body", b"")))
        return response

    return chosen


def _compare(what: str, entries: Iterable[str], given: Iterable[str]) -> None:
    missing = sorted(set(entries) ^ set(given))
    if missing:
        raise Broken(f"entry or handler is missing: {what} {', '.join(missing)}")
