"""Every operation of the door's table, asked by everybody: complete by construction, as both sides come from the table.

A new operation is asked here without anybody writing a line; one that leaks or lets in fails, and so does one that is
about a repository and cannot be asked with the parameters that are made up here: then add them to `VALUES`.
"""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from blacktree.api.door import Door
from blacktree.api.table import METHODS, OPERATIONS, ROUTES, Concerns, Operation
from blacktree.config import DoorConfig
from blacktree.deployment import Deployment, Version
from blacktree.errors import NotFound
from blacktree.orchestrator.control import QueueView, Readiness, WorkerView
from blacktree.orchestrator.deploymentcontrol import DeploymentView
from blacktree.role import Role
from blacktree.runspec import RunSpec
from blacktree.source import Source
from blacktree.token import NewToken
from tests.api.little import TOKEN, House, Little
from tests.api.talk import Answer, Talker, ask, talking, until
from tests.parts.no_deployments import NoDeployments

MARK = "hidden-from-others"
HIDDEN = f"https://example.test/{MARK}/app.git"
OTHERS = "example.test/others/**"
UNKNOWN = "nothing-of-this-name"

# What required fields, and those without which an operation refuses, are filled with.
VALUES: dict[str, Any] = {
    "name": "app",
    "text": "x",
    "changes": {"push": False},
    "watch": 1,
    "kind": "build",
    "role": "view",
    "repository": HIDDEN,
    "run": {"name": "app"},
    "forge": "github",
    "source": "app",
    "value": "a value",
    "url": "https://example.test/hook",
    "version": 1,
}
ALWAYS = ("text", "value", "run")


class Running(NoDeployments):
    """One deployment, of the hidden repository."""

    def __init__(self, time: Any) -> None:
        version = Version(number=1, run=RunSpec(name="app"), created_at=time, repository=HIDDEN, image=MARK)
        self.only = Deployment(name="app", created_at=time, updated_at=time, versions=[version])

    async def all(self) -> list[DeploymentView]:
        return [DeploymentView(deployment=self.only, replicas=[])]

    async def get(self, name: str) -> DeploymentView:
        if name != "app":
            raise NotFound(f"no deployment {name[:80]!r}", advice="`blacktree deployments` lists them")
        return (await self.all())[0]


class Busy(Little):
    """A farm in which everything speaks of the hidden repository."""

    def workers(self) -> list[WorkerView]:
        worker = super().workers()[0]
        return [msgspec.structs.replace(worker, warm=[HIDDEN], jobs=[MARK], refusal=MARK, address=MARK)]

    async def queue(self) -> QueueView:
        return QueueView(kind="embedded", connected=False, reason=MARK, queued={MARK: 1})

    def readiness(self) -> Readiness:
        return Readiness(state="ready", reasons=[MARK])

    def figures(self) -> dict[str, Any]:
        return {"jobs": {MARK: 1}, "slots": {MARK: 1}}


class Stage:
    """The farm, its door, and the tokens of those who ask."""

    def __init__(self, house: House, job: str, tokens: dict[str, str]) -> None:
        self.house = house
        self.job = job
        self.tokens = tokens

    def headers(self, who: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[who]}"} if who else {}

    def path(self, operation: Operation, names: str = "") -> str:
        assert operation.http is not None
        values = {**VALUES, "id": self.job}

        def value(found: re.Match[str]) -> str:
            return names if names and found[1] in ("id", "name") else str(values[found[1]])

        path = re.sub(r"\{(\w+)\}", value, operation.http.path)
        text = "?text=x" if operation.http.query and "text" in operation.http.query.__struct_fields__ else ""
        return path if operation.name == "job.list" else path + text

    def body(self, operation: Operation) -> bytes | None:
        assert operation.http is not None
        if operation.http.verb == "GET":
            return None
        return json.dumps(self.filled(operation.http.body)).encode()

    def filled(self, kind: Any, names: str = "") -> dict[str, Any]:
        kind = kind[-1] if isinstance(kind, tuple) else kind
        if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
            return {}
        values = {**VALUES, "id": self.job}
        found = {}
        for field in msgspec.structs.fields(kind):
            if field.required or field.encode_name in ALWAYS:
                found[field.encode_name] = values.get(field.encode_name, "x")
                if names and field.encode_name in ("id", "name"):
                    found[field.encode_name] = names
        if kind is Source:
            found.pop("run", None)
        return found


@asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            control = Busy()
            await nursery.start(control.store.run)
            await control.secrets.load()
            await nursery.start(control.audit.run)
            job = await control.new_job(repository=HIDDEN)
            await control.print(job, [f"a line of {MARK} x"])
            view = await control.job(job)
            control.deployments = Running(view.job.created_at)
            await control.sources.add(Source(name="app", repository=HIDDEN, branches=[MARK]))
            await control.store.note("source_added", f"source app was added by {MARK}", subject="app")
            await control.store.note("job_damaged", MARK, subject=job)
            await control.store.note("deployment_failed", MARK, subject="app")
            await control.store.note("worker_joined", MARK, subject="w1")
            config = msgspec.structs.replace(DoorConfig(), refusals_per_second=0.0)
            house = House(control, Door(control, config, listen="127.0.0.1:0", token=TOKEN))
            await nursery.start(house.serve)
            tokens = {"farm": TOKEN, "wrong": "bt_nobodyhas_this"}
            for role in ("view", "submit", "admin"):
                tokens[role] = (await control.tokens.create(NewToken(name=role, role=Role(role))))[1]
                wanted = NewToken(name=f"other-{role}", role=Role(role), repositories=[OTHERS])
                tokens[f"other-{role}"] = (await control.tokens.create(wanted))[1]
            late, tokens["expired"] = await control.tokens.create(
                NewToken(name="late", role=Role.ADMIN, expires_in_seconds=0.001)
            )
            gone, tokens["revoked"] = await control.tokens.create(NewToken(name="gone", role=Role.ADMIN))
            await control.tokens.revoke(gone.id)
            await until(lambda: control.tokens.valid(late.id) is None, 40)
            yield Stage(house, job, tokens)
            nursery.cancel_scope.cancel()


async def asked(stage: Stage, who: str, operation: Operation, names: str = "") -> Answer:
    assert operation.http is not None
    headers = stage.headers(who) | {"Content-Type": operation.http.takes[0]}
    path, body = stage.path(operation, names), stage.body(operation)
    return await ask(stage.house, operation.http.verb, path, headers=headers, body=body, token=False)


def code(answer: Answer) -> str:
    if not answer.headers.get("content-type", "").startswith("application/problem"):
        return ""
    return str(answer.json["code"])


@pytest.mark.parametrize("who", ["", "wrong", "expired", "revoked"])
async def test_nobody_without_a_valid_token_gets_past(who: str) -> None:
    async with open_stage() as stage:
        for name, operation in ROUTES.items():
            answer = await asked(stage, who, operation)
            if operation.role is not Role.NONE:
                assert answer.status == 401, name
            assert MARK not in answer.body.decode(), name
        for operation in METHODS.values():
            assert operation.role is not Role.NONE
        with pytest.raises(BaseExceptionGroup):
            async with talking(stage.house, stage.headers(who)):
                raise AssertionError("let in")


@pytest.mark.parametrize("who", ["view", "submit", "admin", "farm"])
async def test_a_role_reaches_as_far_as_the_table_says(who: str) -> None:
    role = Role.ADMIN if who == "farm" else Role(who)
    async with open_stage() as stage:
        for name, operation in ROUTES.items():
            answer = await asked(stage, who, operation)
            allowed = role.holds(operation.role)
            assert (code(answer) == "role_missing") is not allowed, (name, answer.body)
            assert allowed or answer.status == 403, name
            assert code(answer) not in ("farm_wide", "repository_not_allowed"), name
        async with talking(stage.house, stage.headers(who)) as talker:
            told = (await talker.result("token.self"))["may"]
            assert told == [name for name, each in OPERATIONS.items() if role.holds(each.role)]
            for name, operation in METHODS.items():
                answered = await said(stage, talker, operation)
                refused = answered.get("error", {}).get("data", {}).get("code") == "role_missing"
                assert refused is not role.holds(operation.role), (name, answered)
                assert not refused or answered["error"]["code"] == -32003


@pytest.mark.parametrize("who", ["other-view", "other-submit", "other-admin"])
async def test_a_token_of_other_repositories_learns_nothing(who: str) -> None:
    role = Role(who.removeprefix("other-"))
    async with open_stage() as stage:
        for name, operation in ROUTES.items():
            answer = await asked(stage, who, operation)
            assert MARK not in answer.body.decode(), (name, answer.body)
            if not role.holds(operation.role):
                assert code(answer) == "role_missing", name
                continue
            if operation.farm:
                assert (answer.status, code(answer)) == (403, "farm_wide"), name
            elif operation.concerns is Concerns.SPEC or name == "source.add":
                assert (answer.status, code(answer)) == (403, "repository_not_allowed"), name
            elif operation.concerns in (Concerns.JOB, Concerns.DEPLOYMENT, Concerns.SOURCE):
                unknown = await asked(stage, who, operation, UNKNOWN)
                assert (answer.status, unknown.status) == (404, 404), name
                assert like(answer.body.decode(), stage) == unknown.body.decode(), name
            elif operation.role is not Role.NONE:
                assert answer.status < 300 or name in ("page.websocket", "page.asset"), (name, answer.body)
        async with talking(stage.house, stage.headers(who)) as talker:
            told = (await talker.result("token.self"))["may"]
            assert told == [name for name, each in OPERATIONS.items() if role.holds(each.role) and not each.farm]
            for name, operation in METHODS.items():
                answered = await said(stage, talker, operation)
                assert MARK not in json.dumps(answered), name
                error = answered.get("error", {}).get("data", {}).get("code")
                if not role.holds(operation.role):
                    assert error == "role_missing", name
                elif operation.farm:
                    assert error == "farm_wide", name
                elif operation.concerns is Concerns.SPEC or name == "source.add":
                    assert error == "repository_not_allowed", name
                elif operation.concerns in (Concerns.JOB, Concerns.DEPLOYMENT, Concerns.SOURCE):
                    unknown_answer = await said(stage, talker, operation, UNKNOWN)
                    assert like(json.dumps(answered["error"]), stage) == json.dumps(unknown_answer["error"]), name


def like(text: str, stage: Stage) -> str:
    """The answer as it would be about the unknown thing."""
    return re.sub(rf"(?<=')(?:{stage.job}|app)(?=')", UNKNOWN, text)


async def said(stage: Stage, talker: Talker, operation: Operation, names: str = "") -> Any:
    """The answer to a method; what watches tell in between is looked at, and passed over."""
    assert operation.socket is not None
    talker.count += 1
    request = {"jsonrpc": "2.0", "id": talker.count, "method": operation.name}
    await talker.say(request | {"params": stage.filled(operation.socket.params, names)})
    while (heard := await talker.hear()).get("id") != talker.count:
        assert heard["method"] in ("farm.changed", "job.events", "job.end", "watch.failed", "deployment.events"), heard
    return heard


def test_every_operation_is_asked_and_the_farms_own_are_known() -> None:
    assert set(ROUTES) | set(METHODS) == set(OPERATIONS)
    farm = {name for name, each in OPERATIONS.items() if each.farm}
    assert farm == {name for name, each in OPERATIONS.items() if name.partition(".")[0] in ("secret", "notify")} | {
        "worker.drain",
        "probe.metrics",
        "token.create",
        "token.list",
        "token.revoke",
        "audit.list",
    }
    # Whatever changes something is on record.
    assert all(each.acts for each in OPERATIONS.values() if each.role in (Role.SUBMIT, Role.ADMIN) and changes(each))


def changes(operation: Operation) -> bool:
    return operation.http is None or operation.http.verb != "GET"
