"""Sources over HTTP and websocket: declared, listed, changed, removed."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from blacktree.api import shapes
from blacktree.api.answers import json_answer
from blacktree.api.body import read_body
from blacktree.api.changes import SourceChanges, given
from blacktree.api.handler import Handler, Method
from blacktree.api.messages import Nothing
from blacktree.api.query import asked
from blacktree.config import DoorConfig
from blacktree.errors import BadRequest
from blacktree.orchestrator.control import Control
from blacktree.orchestrator.hookcontrol import SourceView
from blacktree.source import source_from
from blacktree.spec import MAX_SPEC_BYTES
from blacktree.strict import decode_json

_JSON = ("application/json",)
_encode = msgspec.json.Encoder().encode


class SourceByName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`source.get`, `source.remove`."""

    name: str


class EditSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`source.edit`: the fields to replace."""

    name: str
    changes: SourceChanges


def source_json(view: SourceView) -> shapes.SourceView:
    """A source as the outside sees it. It holds names of secrets, no value."""
    return shapes.SourceView(**msgspec.structs.asdict(view.source), configured=view.configured)


def _all(control: Control) -> shapes.Sources:
    return shapes.Sources(sources=[source_json(view) for view in control.sources.all()])


def source_handlers(control: Control, config: DoorConfig) -> dict[str, Handler]:
    """The routes' handlers, by operation."""
    limit = min(config.maximum_body_bytes, MAX_SPEC_BYTES)

    async def add(request: Request) -> Response:
        value = _object(await read_body(request, _JSON, limit, required=True), "source")
        view = await control.sources.add(source_from(value), actor=request.state.actor.name)
        return json_answer(source_json(view), 201, {"location": f"/api/v1/sources/{view.source.name}"})

    async def every(request: Request) -> Response:
        asked(request)
        return json_answer(_all(control))

    async def get(request: Request) -> Response:
        asked(request)
        return json_answer(source_json(control.sources.get(_name(request))))

    async def edit(request: Request) -> Response:
        body = await read_body(request, _JSON, limit, required=True)
        changes = given(decode_json(body, SourceChanges, where="source"))
        view = await control.sources.edit(_name(request), changes, actor=request.state.actor.name)
        return json_answer(source_json(view))

    async def remove(request: Request) -> Response:
        return json_answer(source_json(await control.sources.remove(_name(request), actor=request.state.actor.name)))

    return {
        "source.add": add,
        "source.list": every,
        "source.get": get,
        "source.edit": edit,
        "source.remove": remove,
    }


def source_methods(control: Control, actor: str) -> dict[str, Method]:
    """The websocket methods beside them."""

    async def add(params: bytes) -> bytes:
        return _encode(source_json(await control.sources.add(source_from(_object(params, "params")), actor=actor)))

    async def every(params: bytes) -> bytes:
        decode_json(params, Nothing, where="params")
        return _encode(_all(control))

    async def get(params: bytes) -> bytes:
        return _encode(source_json(control.sources.get(decode_json(params, SourceByName, where="params").name)))

    async def edit(params: bytes) -> bytes:
        wanted = decode_json(params, EditSource, where="params")
        return _encode(source_json(await control.sources.edit(wanted.name, given(wanted.changes), actor=actor)))

    async def remove(params: bytes) -> bytes:
        name = decode_json(params, SourceByName, where="params").name
        return _encode(source_json(await control.sources.remove(name, actor=actor)))

    return {
        "source.add": add,
        "source.list": every,
        "source.get": get,
        "source.edit": edit,
        "source.remove": remove,
    }


def _name(request: Request) -> str:
    return str(request.path_params["name"])


def _object(body: bytes, where: str) -> dict[str, Any]:
    value = decode_json(body, dict[str, Any], where=where)
    if "configured" in value:
        raise BadRequest(f"{where}.configured: is not yours to set", path=f"{where}.configured", code="invalid")
    return value
