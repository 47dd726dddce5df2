"""The Starlette application: jobs, events, logs, workers, health and metrics (contract.md, section 5)."""

from functools import partial
from typing import Any
from urllib.parse import parse_qs

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from blacktree.api import messages, pages, shapes
from blacktree.api.answers import events_answer, json_answer, page, refusal
from blacktree.api.assets import Assets
from blacktree.api.asyncapi import asyncapi
from blacktree.api.auth import Actor, cookie_name
from blacktree.api.body import read_body
from blacktree.api.deploymentlog import log_handlers
from blacktree.api.deployments import DeploymentRoutes
from blacktree.api.farmfeed import wait_for_farm_events
from blacktree.api.faults import unexpected
from blacktree.api.handler import Handler
from blacktree.api.joblist import Wanted, find_jobs
from blacktree.api.metrics import CONTENT_TYPE, Tally, exposition
from blacktree.api.notify import notify_handlers
from blacktree.api.oneself import self_handlers
from blacktree.api.openapi import openapi
from blacktree.api.outline import outline
from blacktree.api.query import asked, idempotency_key, last_of, number, sought, state_named
from blacktree.api.reception import Reception
from blacktree.api.search import search
from blacktree.api.secrets import secret_handlers
from blacktree.api.sources import source_handlers
from blacktree.api.text import text_answer
from blacktree.api.tokens import token_handlers
from blacktree.api.webhooks import webhook_handlers
from blacktree.api.wiring import routes_of
from blacktree.config import DoorConfig
from blacktree.errors import BadRequest, BlacktreeError, NotFound
from blacktree.orchestrator.control import Control
from blacktree.spec import MAX_SPEC_BYTES, parse_spec
from blacktree.strict import decode_json
from blacktree.tracecontext import parse


def make_app(control: Control, reception: Reception, config: DoorConfig, tally: Tally) -> Starlette:
    """The application behind the gate, of one view of the farm."""
    rooms = _Routes(control, reception, config, tally)
    app = Starlette(
        routes=routes_of(rooms.handlers(), reception.trail),
        exception_handlers={BlacktreeError: _told, HTTPException: _told_by_starlette, Exception: _unforeseen},
    )
    app.router.redirect_slashes = False
    return app


class _Routes:
    """One method a route; each turns a request into a call of `Control` and its answer into JSON."""

    def __init__(self, control: Control, reception: Reception, config: DoorConfig, tally: Tally) -> None:
        self._control = control
        self._reception = reception
        self._auth = reception.auth
        self._config = config
        self._tally = tally
        self._assets = Assets()

    def handlers(self) -> dict[str, Handler]:
        return {
            "api.openapi": self.openapi,
            "api.asyncapi": self.asyncapi,
            "page.home": self.home,
            "page.asset": self.asset,
            "page.login": self.login,
            "page.login.form": self.login,
            "page.websocket": self.no_websocket,
            "probe.health": self.healthz,
            "probe.ready": self.readyz,
            "probe.metrics": self.metrics,
            "job.submit": self.submit,
            "job.list": self.jobs,
            "job.get": self.job,
            "job.cancel": self.cancel,
            "job.retry": self.retry,
            "job.events": self.events,
            "job.search": self.search,
            "job.outline": self.outline,
            "job.log": self.log,
            "worker.list": self.workers,
            "worker.drain": self.drain,
            "farm.events": self.farm_events,
            **source_handlers(self._control, self._config),
            **notify_handlers(self._control, self._config),
            **secret_handlers(self._control, self._config),
            **token_handlers(self._control, self._reception),
            **self_handlers(self._reception),
            **webhook_handlers(self._control, self._config),
            **DeploymentRoutes(self._control.deployments, self._body).handlers(),
            **log_handlers(self._control.deployments),
        }

    async def home(self, request: Request) -> Response:
        return self._assets.page(request)

    async def asset(self, request: Request) -> Response:
        return self._assets.answer(request.path_params["version"], request.path_params["name"], request)

    async def healthz(self, request: Request) -> Response:
        return json_answer({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        readiness = self._control.readiness()
        value: dict[str, Any] = {"status": readiness.state}
        if request.state.actor is not None:
            value["reasons"] = readiness.reasons
        ready = readiness.state == "ready"
        return json_answer(value, 200 if ready else 503, {} if ready else {"retry-after": "5"})

    async def metrics(self, request: Request) -> Response:
        figures = {**self._control.figures(), **self._tally.figures()}
        return Response(exposition(figures), headers={"content-type": CONTENT_TYPE})

    async def no_websocket(self, request: Request) -> Response:
        error = BadRequest("this address speaks websocket alone", code="upgrade_required")
        return refusal(error, {"upgrade": "websocket"})

    async def openapi(self, request: Request) -> Response:
        asked(request)
        return Response(openapi(), headers={"content-type": "application/json"})

    async def asyncapi(self, request: Request) -> Response:
        asked(request)
        return Response(asyncapi(), headers={"content-type": "application/json"})

    async def login(self, request: Request) -> Response:
        if request.method == "HEAD":
            return page(pages.LOGIN, pages.LOGIN_POLICY)
        if request.method == "POST":
            form = parse_qs((await self._body(request, ("application/x-www-form-urlencoded",))).decode("latin-1"))
            secret = form.get("token", [""])[0].strip()
            token = self._auth.shown(secret) or self._auth.exchange(secret)
        elif secret := request.query_params.get("token", ""):
            token = self._auth.exchange(secret)
        elif "again" in request.query_params and request.state.actor is not None:
            # Asked by the login page's own script: this time the browser has shown its session.
            return Response(status_code=303, headers={"location": "/"})
        else:
            return page(pages.LOGIN, pages.LOGIN_POLICY)
        if token is None:
            return page(pages.LOGIN_FAILED, pages.LOGIN_POLICY, 401)
        session, seconds = self._auth.new_session(token)
        self._reception.trail.let_in(token, request.scope["client"][0])
        name = cookie_name(request.scope["server"][1])
        cookie = f"{name}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}"
        if request.scope["scheme"] == "https":
            cookie += "; Secure"
        return Response(status_code=303, headers={"location": "/", "set-cookie": cookie})

    async def submit(self, request: Request) -> Response:
        spec = parse_spec(await self._body(request, ("application/json",), required=True))
        key = idempotency_key(request)
        if spec.traceparent is None and (caller := parse(request.headers.get("traceparent"))) is not None:
            spec = msgspec.structs.replace(spec, traceparent=caller.traceparent)
        view, new = await self._control.submit(spec, key=key, actor=_actor(request).token_name)
        return json_answer(messages.job_json(view), 201 if new else 200, {"location": f"/api/v1/jobs/{view.job.id}"})

    async def jobs(self, request: Request) -> Response:
        query = asked(request)
        states = [state_named(name) for text in query["state"] for name in text.split(",") if name]
        limit = messages.clamp(number(query, "limit", 50), 1, messages.MOST_JOBS)
        wanted = Wanted(**{name: last_of(query, name) for name in ("repository", "text", "pool")})
        cursor = last_of(query, "cursor") or None
        found = await find_jobs(self._control, states, wanted, limit=limit, cursor=cursor)
        return json_answer(messages.jobs_json(found))

    async def job(self, request: Request) -> Response:
        return json_answer(messages.job_json(await self._control.job(_id(request))))

    async def cancel(self, request: Request) -> Response:
        body = await self._body(request, ("application/json",))
        wanted = decode_json(body, messages.Cancel, where="body") if body.strip() else messages.Cancel()
        actor = _actor(request).name
        return json_answer(
            messages.job_json(await self._control.cancel(_id(request), reason=wanted.reason, actor=actor))
        )

    async def retry(self, request: Request) -> Response:
        body = await self._body(request, ("application/json",))
        if body.strip():
            decode_json(body, messages.Nothing, where="body")
        view = await self._control.retry(_id(request), actor=_actor(request).token_name)
        return json_answer(messages.job_json(view), 201, {"location": f"/api/v1/jobs/{view.job.id}"})

    async def events(self, request: Request) -> Response:
        query = asked(request)
        from_seq = messages.clamp(number(query, "from_seq", 1), 1)
        limit = messages.clamp(number(query, "limit", 1000), 1, messages.MOST_EVENTS)
        piece = await self._control.events(_id(request), from_seq, limit)
        body = b'{"events":[%b],"next_seq":%d}' % (piece.body, piece.next_seq)
        end = (await self._control.job(_id(request))).job.next_seq
        # How long the log is, for whoever wants to begin at its end.
        tag = f'"{from_seq}-{piece.next_seq}"'
        return await events_answer(request, body, tag, {"blacktree-end-seq": str(end - 1)})

    async def search(self, request: Request) -> Response:
        return json_answer(await search(partial(self._control.records, _id(request)), sought(request)))

    async def outline(self, request: Request) -> Response:
        query = asked(request)
        from_seq = messages.clamp(number(query, "from_seq", 1), 1)
        read = partial(self._control.records, _id(request))
        return json_answer(await outline(read, last_of(query, "step"), from_seq))

    async def log(self, request: Request) -> Response:
        asked(request)
        job_id = _id(request)
        size = await self._control.text_size(job_id)
        return text_answer(request, self._control, job_id, 0, size)

    async def workers(self, request: Request) -> Response:
        asked(request)
        return json_answer(shapes.Workers(workers=self._control.workers()))

    async def drain(self, request: Request) -> Response:
        body = await self._body(request, ("application/json",))
        wanted = decode_json(body, messages.Drain, where="body") if body.strip() else messages.Drain()
        view = await self._control.drain(_id(request), wanted.drain, actor=_actor(request).name)
        return json_answer(view)

    async def farm_events(self, request: Request) -> Response:
        query = asked(request)
        from_seq = messages.clamp(number(query, "from_seq", 1), 1)
        limit = messages.clamp(number(query, "limit", 1000), 1, messages.MOST_EVENTS)
        wait = float(messages.clamp(number(query, "wait", 0), 0, 3600))
        events = await wait_for_farm_events(self._control, from_seq, limit, wait)
        return json_answer(messages.farm_events_json(events, from_seq))

    async def _body(self, request: Request, kinds: tuple[str, ...], *, required: bool = False) -> bytes:
        limit = min(self._config.maximum_body_bytes, MAX_SPEC_BYTES)
        return await read_body(request, kinds, limit, required=required)


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, BlacktreeError)
    extra = {"content-range": f"bytes */{error.data['size']}"} if "size" in error.data else {}
    return refusal(error, extra)


async def _told_by_starlette(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        refused = BadRequest(f"{request.method[:20]} is not for this address", code="method_not_allowed")
        return refusal(refused, dict(error.headers or {}))
    return refusal(NotFound("there is nothing at this address"))


async def _unforeseen(request: Request, error: Exception) -> Response:
    return refusal(unexpected())


def _actor(request: Request) -> Actor:
    actor = request.state.actor
    assert isinstance(actor, Actor)
    return actor


def _id(request: Request) -> str:
    return str(request.path_params["id"])
