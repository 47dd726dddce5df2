"""Tokens, login links and the record of acts at the door."""

from datetime import timedelta
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from blacktree.api.access import check
from blacktree.api.answers import json_answer
from blacktree.api.auth import CODE_SECONDS, Actor
from blacktree.api.body import read_body
from blacktree.api.handler import Handler, Method
from blacktree.api.messages import Nothing, clamp
from blacktree.api.query import asked, last_of, number
from blacktree.api.reception import Reception
from blacktree.audit import AuditEntry
from blacktree.clock import now
from blacktree.errors import Conflict
from blacktree.orchestrator.control import Control
from blacktree.role import Role
from blacktree.strict import decode_json
from blacktree.token import FARM, NewToken, Token

MOST_ENTRIES = 1000
_MOST_BYTES = 64 * 1024
_JSON = ("application/json",)
_encode = msgspec.json.Encoder().encode


class TokenByName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`token.revoke`: an id, or the name of a valid one."""

    name: str


class AskLink(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`token.link`: for oneself, or (an admin) for another token, by id or name."""

    token: str | None = None


class AskTrail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`audit.list`: newest first, entries below `before`."""

    before: int | None = None
    limit: int = 100


def token_json(token: Token) -> dict[str, Any]:
    """A token as the outside sees it. `state`: `valid`, `expired` or `revoked`."""
    state = "valid" if token.valid(now()) else "expired" if token.revoked_at is None else "revoked"
    value: dict[str, Any] = msgspec.to_builtins(token)
    del value["digest"]
    return value | {"state": state, "created_at": None if token.id == FARM else value["created_at"]}


class TokenDesk:
    """What both HTTP and websocket ask."""

    def __init__(self, control: Control, reception: Reception) -> None:
        self._tokens = control.tokens
        self._audit = control.audit
        self._auth = reception.auth
        self._make_link = reception.link

    async def create(self, wanted: NewToken, actor: Actor) -> dict[str, Any]:
        """The only time that the secret is told."""
        token, secret = await self._tokens.create(wanted, actor=actor.name)
        return {"token": token_json(token), "secret": secret}

    def all(self) -> dict[str, Any]:
        """The state directory's one comes first."""
        return {"tokens": [token_json(each) for each in (self._auth.farm, *self._tokens.all())]}

    async def revoke(self, name: str, actor: Actor) -> dict[str, Any]:
        """Raises `Conflict` for the one that only the state directory can change."""
        if name in (FARM, self._auth.farm.name):
            raise Conflict(
                "the farm's own token is a file and cannot be revoked here",
                code="farm_token",
                advice="stop the farm, remove `token` from its state directory, and start it again",
            )
        return token_json(await self._tokens.revoke(name, actor=actor.name))

    def link(self, wanted: AskLink, actor: Actor) -> dict[str, Any]:
        """Raises `NotFound`, `NotAllowed` for another's token."""
        identity = actor.token
        if wanted.token is not None:
            token = self._auth.farm if wanted.token == FARM else None
            if token is None and (actor.token != wanted.token):
                check(Role.ADMIN, farm=True, actor=actor)
                token = self._tokens.get(wanted.token)
            elif token is not None and actor.token != FARM:
                check(Role.ADMIN, farm=True, actor=actor)
            identity = token.id if token is not None else identity
        return {
            "url": self._make_link(identity),
            "token": {"id": identity},
            "expires_at": now() + timedelta(seconds=CODE_SECONDS),
        }

    async def trail(self, wanted: AskTrail) -> dict[str, Any]:
        """A page of the record."""
        limit = clamp(wanted.limit, 1, MOST_ENTRIES)
        entries: list[AuditEntry] = await self._audit.entries(before=wanted.before, limit=limit)
        return {"entries": entries, "before": entries[-1].seq if len(entries) == limit else None}


def token_handlers(control: Control, reception: Reception) -> dict[str, Handler]:
    """The routes' handlers, by operation."""
    desk = TokenDesk(control, reception)

    async def create(request: Request) -> Response:
        body = await read_body(request, _JSON, _MOST_BYTES, required=True)
        made = await desk.create(decode_json(body, NewToken, where="body"), request.state.actor)
        return json_answer(made, 201, {"location": f"/api/v1/tokens/{made['token']['id']}"})

    async def every(request: Request) -> Response:
        asked(request)
        return json_answer(desk.all())

    async def revoke(request: Request) -> Response:
        asked(request)
        return json_answer(await desk.revoke(str(request.path_params["name"]), request.state.actor))

    async def link(request: Request) -> Response:
        body = await read_body(request, _JSON, _MOST_BYTES)
        wanted = decode_json(body, AskLink, where="body") if body.strip() else AskLink()
        return json_answer(desk.link(wanted, request.state.actor), 201)

    async def trail(request: Request) -> Response:
        query = asked(request)
        before = clamp(number(query, "before", 0), 0) if last_of(query, "before") else None
        return json_answer(await desk.trail(AskTrail(before=before, limit=number(query, "limit", 100))))

    return {
        "token.create": create,
        "token.list": every,
        "token.revoke": revoke,
        "token.link": link,
        "audit.list": trail,
    }


def token_methods(control: Control, reception: Reception, actor: Actor) -> dict[str, Method]:
    """The websocket methods beside them."""
    desk = TokenDesk(control, reception)

    async def create(params: bytes) -> bytes:
        return _encode(await desk.create(decode_json(params, NewToken, where="params"), actor))

    async def every(params: bytes) -> bytes:
        decode_json(params, Nothing, where="params")
        return _encode(desk.all())

    async def revoke(params: bytes) -> bytes:
        return _encode(await desk.revoke(decode_json(params, TokenByName, where="params").name, actor))

    async def link(params: bytes) -> bytes:
        return _encode(desk.link(decode_json(params, AskLink, where="params"), actor))

    async def trail(params: bytes) -> bytes:
        return _encode(await desk.trail(decode_json(params, AskTrail, where="params")))

    return {
        "token.create": create,
        "token.list": every,
        "token.revoke": revoke,
        "token.link": link,
        "audit.list": trail,
    }
