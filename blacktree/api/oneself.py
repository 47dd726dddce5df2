"""Whoever asks, told who they are: their token, and what they may ask for."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from blacktree.api.answers import json_answer
from blacktree.api.auth import Actor
from blacktree.api.handler import Handler, Method
from blacktree.api.messages import Nothing
from blacktree.api.query import asked
from blacktree.api.reception import Reception
from blacktree.api.table import OPERATIONS
from blacktree.api.tokens import token_json
from blacktree.api.wiring import admit
from blacktree.errors import NotAllowed
from blacktree.strict import decode_json

_encode = msgspec.json.Encoder().encode


def oneself(reception: Reception, actor: Actor) -> dict[str, Any]:
    """The actor's token and, as `may`, the operations that it is let into; which repositories is another matter."""
    token = reception.auth.token(actor.token)
    return token_json(token) | {"may": may(actor)} if token is not None else {}


def may(actor: Actor) -> list[str]:
    """The operations that this actor is let into, in the order of the table."""
    return [name for name in OPERATIONS if _admitted(name, actor)]


def _admitted(name: str, actor: Actor) -> bool:
    try:
        admit(OPERATIONS[name], actor)
    except NotAllowed:
        return False
    return True


def self_handlers(reception: Reception) -> dict[str, Handler]:
    """The route."""

    async def itself(request: Request) -> Response:
        asked(request)
        return json_answer(oneself(reception, request.state.actor))

    return {"token.self": itself}


def self_methods(reception: Reception, actor: Actor) -> dict[str, Method]:
    """The websocket method beside it."""

    async def itself(params: bytes) -> bytes:
        decode_json(params, Nothing, where="params")
        return _encode(oneself(reception, actor))

    return {"token.self": itself}
