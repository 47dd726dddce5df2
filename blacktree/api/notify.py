"""Targets of notifications over HTTP and websocket: declared, listed, changed, removed, tried."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from blacktree.api import messages, shapes
from blacktree.api.answers import json_answer
from blacktree.api.body import read_body
from blacktree.api.changes import TargetChanges, given
from blacktree.api.handler import Handler, Method
from blacktree.api.query import asked
from blacktree.config import DoorConfig
from blacktree.notification import Target, checked
from blacktree.orchestrator.control import Control
from blacktree.orchestrator.notifycontrol import TargetView
from blacktree.spec import MAX_SPEC_BYTES
from blacktree.strict import decode_json

_JSON = ("application/json",)
_encode = msgspec.json.Encoder().encode


class ByName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`notify.get`, `notify.remove`, `notify.log`, `notify.test`."""

    name: str


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`notify.edit`: the fields to replace."""

    name: str
    changes: TargetChanges


def target_json(view: TargetView) -> shapes.TargetView:
    """A target as the outside sees it. It holds the name of a secret, no value."""
    return shapes.TargetView(
        **msgspec.structs.asdict(view.target),
        configured=view.configured,
        waiting=view.waiting,
        failures=view.failures,
    )


def _all(control: Control) -> shapes.Targets:
    return shapes.Targets(targets=[target_json(view) for view in control.notify.all()])


def notify_handlers(control: Control, config: DoorConfig) -> dict[str, Handler]:
    """The routes' handlers, by operation."""
    limit = min(config.maximum_body_bytes, MAX_SPEC_BYTES)

    async def add(request: Request) -> Response:
        body = await read_body(request, _JSON, limit, required=True)
        target = checked(decode_json(body, Target, where="target"))
        view = await control.notify.add(target, actor=request.state.actor.name)
        return json_answer(target_json(view), 201, {"location": f"/api/v1/notify/{view.target.name}"})

    async def every(request: Request) -> Response:
        asked(request)
        return json_answer(_all(control))

    async def get(request: Request) -> Response:
        asked(request)
        return json_answer(target_json(control.notify.get(_name(request))))

    async def edit(request: Request) -> Response:
        body = await read_body(request, _JSON, limit, required=True)
        changes = given(decode_json(body, TargetChanges, where="target"))
        view = await control.notify.edit(_name(request), changes, actor=request.state.actor.name)
        return json_answer(target_json(view))

    async def remove(request: Request) -> Response:
        return json_answer(target_json(await control.notify.remove(_name(request), actor=request.state.actor.name)))

    async def log(request: Request) -> Response:
        asked(request)
        return json_answer(shapes.DeliveryLog(deliveries=control.notify.tried(_name(request))))

    async def test(request: Request) -> Response:
        body = await read_body(request, _JSON, limit)
        if body.strip():
            decode_json(body, messages.Nothing, where="body")
        tried = await control.notify.test(_name(request), actor=request.state.actor.name)
        return json_answer(tried)

    return {
        "notify.add": add,
        "notify.list": every,
        "notify.get": get,
        "notify.edit": edit,
        "notify.remove": remove,
        "notify.log": log,
        "notify.test": test,
    }


def notify_methods(control: Control, actor: str) -> dict[str, Method]:
    """The websocket methods beside them."""

    async def add(params: bytes) -> bytes:
        target = checked(decode_json(params, Target, where="params"), "params")
        return _encode(target_json(await control.notify.add(target, actor=actor)))

    async def every(params: bytes) -> bytes:
        decode_json(params, messages.Nothing, where="params")
        return _encode(_all(control))

    async def get(params: bytes) -> bytes:
        return _encode(target_json(control.notify.get(_named(params))))

    async def edit(params: bytes) -> bytes:
        wanted = decode_json(params, Edit, where="params")
        return _encode(target_json(await control.notify.edit(wanted.name, given(wanted.changes), actor=actor)))

    async def remove(params: bytes) -> bytes:
        return _encode(target_json(await control.notify.remove(_named(params), actor=actor)))

    async def log(params: bytes) -> bytes:
        return _encode(shapes.DeliveryLog(deliveries=control.notify.tried(_named(params))))

    async def test(params: bytes) -> bytes:
        return _encode(await control.notify.test(_named(params), actor=actor))

    return {
        "notify.add": add,
        "notify.list": every,
        "notify.get": get,
        "notify.edit": edit,
        "notify.remove": remove,
        "notify.log": log,
        "notify.test": test,
    }


def _name(request: Request) -> str:
    return str(request.path_params["name"])


def _named(params: bytes) -> str:
    return decode_json(params, ByName, where="params").name
