"""Handlers and the table, joined: nothing is served that has no entry, and no entry is without a handler."""

from collections.abc import Iterable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from blacktree.api.auth import Actor
from blacktree.api.handler import Handler
from blacktree.api.table import METHODS, ROUTES, Operation
from blacktree.errors import Broken


def admit(operation: Operation, actor: Actor | None) -> None:
    """Whether somebody may ask for this at all; which repository it is about is looked at afterwards.

    Raises `NotAllowed`. Today whoever bears the farm's token has every role, and the gate has turned away the others.
    """


def routes_of(handlers: Mapping[str, Handler]) -> list[Route]:
    """One route a path, for the operations of the table that have one. Raises `Broken` for a gap on either side."""
    _compare("route", ROUTES, handlers)
    by_path: dict[str, dict[str, tuple[Operation, Handler]]] = {}
    for name, operation in ROUTES.items():
        http = operation.http
        assert http is not None
        by_path.setdefault(http.path, {})[http.verb] = (operation, handlers[name])
    return [Route(path, _by_verb(verbs), methods=list(verbs)) for path, verbs in by_path.items()]


def check_methods(methods: Iterable[str]) -> None:
    """Whether these are the websocket methods of the table. Raises `Broken`."""
    _compare("websocket method", METHODS, methods)


def _by_verb(verbs: dict[str, tuple[Operation, Handler]]) -> Handler:
    async def chosen(request: Request) -> Response:
        operation, handler = verbs["GET" if request.method == "HEAD" else request.method]
        request.state.operation = operation
        admit(operation, request.state.actor)
        return await handler(request)

    return chosen


def _compare(what: str, entries: Iterable[str], given: Iterable[str]) -> None:
    missing = sorted(set(entries) ^ set(given))
    if missing:
        raise Broken(f"entry or handler is missing: {what} {', '.join(missing)}")
