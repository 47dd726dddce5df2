"""Secrets at the door: write-only. A value comes in, and no way leads it out again."""

import base64
import binascii
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from blacktree.api.answers import json_answer
from blacktree.api.body import read_body
from blacktree.api.handler import Handler, Method
from blacktree.api.messages import Nothing
from blacktree.api.query import asked
from blacktree.config import DoorConfig
from blacktree.errors import BadRequest
from blacktree.orchestrator.control import Control
from blacktree.orchestrator.secretcontrol import SecretControl
from blacktree.secret import SecretView, kind_named
from blacktree.secretfiles import MAXIMUM_BYTES
from blacktree.strict import decode_json

T = TypeVar("T")

_JSON = ("application/json",)
_SMALLER = f"a value has at most {MAXIMUM_BYTES} bytes; send large ones as `value_base64`"


class SecretBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `PUT /api/v1/secrets/{kind}/{name}`: the value as text or as base64, and who gets it."""

    value: str | None = None
    value_base64: str | None = None
    sources: list[str] = []
    repositories: list[str] = []

    def __repr__(self) -> str:
        return "SecretBody(***)"

    def bytes(self) -> bytes:
        """The value. Raises `BadRequest`."""
        if (self.value is None) == (self.value_base64 is None):
            raise BadRequest("value: give either `value` or `value_base64`", path="value", code="invalid")
        if self.value is not None:
            return self.value.encode("utf-8", "surrogatepass")
        try:
            return base64.b64decode(self.value_base64 or "", validate=True)
        except (binascii.Error, ValueError):
            raise BadRequest("value_base64: is not base64", path="value_base64", code="invalid") from None


class PutSecret(SecretBody, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`secret.put`."""

    kind: str
    name: str


class RemoveSecret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`secret.remove`."""

    kind: str
    name: str


class RotateKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`secret.rotate`. `new_key_file`: on the orchestrator's machine; it is only read."""

    new_key_file: str = ""


def secret_handlers(control: Control, config: DoorConfig) -> dict[str, Handler]:
    """The handlers of `/api/v1/secrets` and below, by operation."""
    secrets = control.secrets

    async def listing(request: Request) -> Response:
        asked(request)
        return json_answer(await listed(secrets))

    async def put(request: Request) -> Response:
        asked(request)
        kind, name, actor = request.path_params["kind"], request.path_params["name"], request.state.actor.name
        body = await read_body(request, _JSON, config.maximum_body_bytes, required=True, advice=_SMALLER)
        return json_answer(await _put(secrets, kind, name, decode_json(body, SecretBody, where="body"), actor))

    async def remove(request: Request) -> Response:
        asked(request)
        kind, name, actor = request.path_params["kind"], request.path_params["name"], request.state.actor.name
        await secrets.remove(name, kind=kind_named(kind), actor=actor)
        return Response(status_code=204)

    async def rotate(request: Request) -> Response:
        asked(request)
        body = await read_body(request, _JSON, config.maximum_body_bytes)
        wanted = decode_json(body, RotateKey, where="body") if body.strip() else RotateKey()
        done = await secrets.rotate(wanted.new_key_file, actor=request.state.actor.name)
        return json_answer(msgspec.to_builtins(done))

    return {"secret.list": listing, "secret.put": put, "secret.remove": remove, "secret.rotate": rotate}


def secret_methods(control: Control, actor: str) -> dict[str, Method]:
    """`secret.put`, `secret.remove`, `secret.list`, `secret.rotate`."""
    secrets = control.secrets

    async def put(params: bytes) -> bytes:
        given = _params(params, PutSecret)
        return msgspec.json.encode(await _put(secrets, given.kind, given.name, given, actor))

    async def remove(params: bytes) -> bytes:
        given = _params(params, RemoveSecret)
        await secrets.remove(given.name, kind=kind_named(given.kind), actor=actor)
        return b"{}"

    async def listing(params: bytes) -> bytes:
        _params(params, Nothing)
        return msgspec.json.encode(await listed(secrets))

    async def rotate(params: bytes) -> bytes:
        done = await secrets.rotate(_params(params, RotateKey).new_key_file, actor=actor)
        return msgspec.json.encode(done)

    return {"secret.put": put, "secret.remove": remove, "secret.list": listing, "secret.rotate": rotate}


async def listed(secrets: SecretControl) -> dict[str, Any]:
    """All secrets without their values, and how the key stands."""
    return {
        "secrets": [secret_json(view) for view in await secrets.listed()],
        "key": msgspec.to_builtins(secrets.key()),
    }


def secret_json(view: SecretView) -> dict[str, Any]:
    """A secret as everybody outside sees it."""
    value: dict[str, Any] = msgspec.to_builtins(view)
    return value


async def _put(secrets: SecretControl, kind: str, name: str, given: SecretBody, actor: str) -> dict[str, Any]:
    view = await secrets.put(
        name,
        given.bytes(),
        kind=kind_named(kind),
        sources=given.sources,
        repositories=given.repositories,
        actor=actor,
    )
    return secret_json(view)


def _params(body: bytes, kind: type[T]) -> T:
    return decode_json(body, kind, where="params")
