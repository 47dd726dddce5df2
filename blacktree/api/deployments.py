"""Deployments at the door: their JSON, HTTP routes, websocket methods. What they print: `deploymentlog`."""

from typing import Any, Literal, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from blacktree.api.answers import json_answer
from blacktree.api.auth import Actor
from blacktree.api.handler import Handler, Method
from blacktree.api.messages import Nothing
from blacktree.api.query import asked, idempotency_key, last_of
from blacktree.deployment import DeployImage, public_version
from blacktree.errors import BadRequest
from blacktree.orchestrator.deploymentcontrol import Deployed, DeploymentControl, DeploymentView
from blacktree.runspec import RunSpec, check_run
from blacktree.spec import JobSpec, spec_from
from blacktree.strict import convert, decode_json

_encode = msgspec.json.Encoder().encode


class ByName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`deployment.get`, `deployment.stop`, `deployment.restart`."""

    name: str


class Rollback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`deployment.rollback`; without a version, the one that ran before."""

    name: str
    version: int | None = None


class RollbackBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /api/v1/deployments/{name}/rollback`."""

    version: int | None = None


class Delete(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`deployment.delete`; with `secrets`, also the run secrets that nothing else names."""

    name: str
    secrets: bool = False


class DeleteQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `DELETE /api/v1/deployments/{name}` takes: see `Delete`."""

    secrets: Literal["true", "false"] = "false"


class DeployJob(JobSpec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A job's spec whose image is run when it is built."""

    run: RunSpec


def deployment_json(view: DeploymentView) -> dict[str, Any]:
    """A deployment as everybody outside sees it; versions oldest first."""
    deployment = view.deployment
    return {
        "name": deployment.name,
        "state": deployment.state,
        "desired": deployment.desired,
        "serving": deployment.serving,
        "target": deployment.target,
        "waiting": view.waiting or None,
        "versions": [public_version(each) for each in deployment.versions],
        "replicas": [msgspec.to_builtins(each) for each in view.replicas],
        "created_at": deployment.created_at,
        "updated_at": deployment.updated_at,
    }


def deployed_json(deployed: Deployed) -> dict[str, Any]:
    """An accepted deployment: the number of its version, where its log begins, and the build that makes it, if any."""
    return {
        "deployment": deployment_json(deployed.view),
        "version": deployed.version,
        "from_seq": deployed.from_seq,
        "job": deployed.job_id,
    }


def wanted_from(body: bytes) -> DeployImage | JobSpec:
    """An image and how to run it, or a job's spec with `run`. Raises `BadRequest` with the path."""
    value = decode_json(body, dict[str, Any], where="spec")
    if "repository" in value:
        spec = spec_from(value)
        if spec.run is None:
            raise BadRequest("spec.run: is missing: it says how the image is run", path="spec.run", code="invalid")
        return spec
    wanted = convert(value, DeployImage, where="spec")
    check_run(wanted.run)
    return wanted


class _Body(Protocol):
    async def __call__(self, request: Request, kinds: tuple[str, ...], *, required: bool = False) -> bytes: ...


class DeploymentRoutes:
    """One method a route."""

    def __init__(self, control: DeploymentControl, body: _Body) -> None:
        self._control = control
        self._body = body

    def handlers(self) -> dict[str, Handler]:
        return {
            "deployment.deploy": self.deploy,
            "deployment.list": self.list,
            "deployment.get": self.get,
            "deployment.stop": self.stop,
            "deployment.restart": self.restart,
            "deployment.rollback": self.rollback,
            "deployment.delete": self.delete,
        }

    async def deploy(self, request: Request) -> Response:
        wanted = wanted_from(await self._body(request, ("application/json",), required=True))
        key = idempotency_key(request)
        deployed = await self._control.deploy(wanted, key=key, actor=_actor(request).name)
        where = {"location": f"/api/v1/deployments/{deployed.view.deployment.name}"}
        return json_answer(deployed_json(deployed), 201 if deployed.new else 200, where)

    async def list(self, request: Request) -> Response:
        asked(request)
        return json_answer({"deployments": [deployment_json(each) for each in await self._control.all()]})

    async def get(self, request: Request) -> Response:
        asked(request)
        return json_answer(deployment_json(await self._control.get(_name(request))))

    async def stop(self, request: Request) -> Response:
        await self._no_body(request)
        return json_answer(deployment_json(await self._control.stop(_name(request), actor=_actor(request).name)))

    async def restart(self, request: Request) -> Response:
        await self._no_body(request)
        return json_answer(deployment_json(await self._control.restart(_name(request), actor=_actor(request).name)))

    async def rollback(self, request: Request) -> Response:
        body = await self._body(request, ("application/json",))
        wanted = decode_json(body, RollbackBody, where="body") if body.strip() else RollbackBody()
        deployed = await self._control.rollback(_name(request), wanted.version, actor=_actor(request).name)
        return json_answer(deployed_json(deployed), 201)

    async def delete(self, request: Request) -> Response:
        text = last_of(asked(request), "secrets") or "false"
        if text not in ("true", "false"):
            raise BadRequest("`secrets` must be `true` or `false`", path="secrets", code="bad_query")
        actor = _actor(request).name
        view = await self._control.delete(_name(request), secrets=text == "true", actor=actor)
        return json_answer(deployment_json(view))

    async def _no_body(self, request: Request) -> None:
        body = await self._body(request, ("application/json",))
        if body.strip():
            decode_json(body, Nothing, where="body")


class DeploymentMethods:
    """The same for a websocket: parameters as JSON in, the result as JSON out."""

    def __init__(self, control: DeploymentControl, actor: Actor) -> None:
        self._control = control
        self._actor = actor.name

    def table(self) -> dict[str, Method]:
        return {
            "deployment.deploy": self._deploy,
            "deployment.list": self._list,
            "deployment.get": self._get,
            "deployment.stop": self._stop,
            "deployment.restart": self._restart,
            "deployment.rollback": self._rollback,
            "deployment.delete": self._delete,
        }

    async def _deploy(self, params: bytes) -> bytes:
        return _encode(deployed_json(await self._control.deploy(wanted_from(params), actor=self._actor)))

    async def _list(self, params: bytes) -> bytes:
        decode_json(params, Nothing, where="params")
        return _encode({"deployments": [deployment_json(each) for each in await self._control.all()]})

    async def _get(self, params: bytes) -> bytes:
        return _encode(deployment_json(await self._control.get(_named(params))))

    async def _stop(self, params: bytes) -> bytes:
        return _encode(deployment_json(await self._control.stop(_named(params), actor=self._actor)))

    async def _restart(self, params: bytes) -> bytes:
        return _encode(deployment_json(await self._control.restart(_named(params), actor=self._actor)))

    async def _rollback(self, params: bytes) -> bytes:
        wanted = decode_json(params, Rollback, where="params")
        return _encode(deployed_json(await self._control.rollback(wanted.name, wanted.version, actor=self._actor)))

    async def _delete(self, params: bytes) -> bytes:
        wanted = decode_json(params, Delete, where="params")
        view = await self._control.delete(wanted.name, secrets=wanted.secrets, actor=self._actor)
        return _encode(deployment_json(view))


def _named(params: bytes) -> str:
    return decode_json(params, ByName, where="params").name


def _name(request: Request) -> str:
    return str(request.path_params["name"])


def _actor(request: Request) -> Actor:
    actor = request.state.actor
    assert isinstance(actor, Actor)
    return actor
