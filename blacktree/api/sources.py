"""Sources over HTTP and websocket: declared, listed, changed, removed."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from blacktree.api.answers import json_answer
from blacktree.api.body import read_body
from blacktree.config import DoorConfig
from blacktree.errors import BadRequest
from blacktree.orchestrator.control import Control
from blacktree.orchestrator.hookcontrol import SourceView
from blacktree.source import source_from
from blacktree.spec import MAX_SPEC_BYTES
from blacktree.strict import decode_json

_JSON = ("application/json",)
_encode = msgspec.json.Encoder().encode

Method = Callable[[bytes], Awaitable[bytes]]


class _ByName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


class _Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    changes: dict[str, Any]


class _Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


def source_json(view: SourceView) -> dict[str, Any]:
    """A source as the outside sees it. It holds names of secrets, no value."""
    value: dict[str, Any] = msgspec.to_builtins(view.source)
    return value | {"configured": view.configured}


def source_routes(control: Control, config: DoorConfig) -> list[Route]:
    """The routes, for the table."""
    limit = min(config.maximum_body_bytes, MAX_SPEC_BYTES)

    async def every(request: Request) -> Response:
        if request.method == "POST":
            value = _object(await read_body(request, _JSON, limit, required=True), "source")
            view = await control.sources.add(source_from(value), actor=request.state.actor.name)
            return json_answer(source_json(view), 201, {"location": f"/api/v1/sources/{view.source.name}"})
        return json_answer({"sources": [source_json(view) for view in control.sources.all()]})

    async def one(request: Request) -> Response:
        name, actor = str(request.path_params["name"]), request.state.actor.name
        if request.method == "PATCH":
            changes = _object(await read_body(request, _JSON, limit, required=True), "source")
            return json_answer(source_json(await control.sources.edit(name, changes, actor=actor)))
        if request.method == "DELETE":
            return json_answer(source_json(await control.sources.remove(name, actor=actor)))
        return json_answer(source_json(control.sources.get(name)))

    return [
        Route("/api/v1/sources", every, methods=["GET", "POST"]),
        Route("/api/v1/sources/{name}", one, methods=["GET", "PATCH", "DELETE"]),
    ]


def source_methods(control: Control, actor: str) -> dict[str, Method]:
    """The websocket methods beside them."""

    async def add(params: bytes) -> bytes:
        return _encode(source_json(await control.sources.add(source_from(_object(params, "params")), actor=actor)))

    async def every(params: bytes) -> bytes:
        decode_json(params, _Nothing, where="params")
        return _encode({"sources": [source_json(view) for view in control.sources.all()]})

    async def get(params: bytes) -> bytes:
        return _encode(source_json(control.sources.get(decode_json(params, _ByName, where="params").name)))

    async def edit(params: bytes) -> bytes:
        asked = decode_json(params, _Edit, where="params")
        return _encode(source_json(await control.sources.edit(asked.name, asked.changes, actor=actor)))

    async def remove(params: bytes) -> bytes:
        name = decode_json(params, _ByName, where="params").name
        return _encode(source_json(await control.sources.remove(name, actor=actor)))

    return {
        "source.add": add,
        "source.list": every,
        "source.get": get,
        "source.edit": edit,
        "source.remove": remove,
    }


def _object(body: bytes, where: str) -> dict[str, Any]:
    value = decode_json(body, dict[str, Any], where=where)
    if "configured" in value:
        raise BadRequest(f"{where}.configured: is not yours to set", path=f"{where}.configured", code="invalid")
    return value
