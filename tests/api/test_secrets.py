"""Secrets at the door: every route and method, and no way for a value to come out."""

import base64
import json
from typing import Any

import pytest

from blacktree.client import Client
from blacktree.client.secrets import list_secrets, put_login, put_secret, remove_secret, rotate_key
from blacktree.errors import BadRequest, NotFound
from blacktree.keyfile import KeyPlace
from blacktree.orchestrator.keyring import Keyring
from blacktree.orchestrator.vault import Vault
from blacktree.secret import SecretKind
from tests.api.little import TOKEN, House, Little, open_house
from tests.api.talk import Answer, ask, talking

JSON = {"Content-Type": "application/json"}
VALUE = "hunter2-hunter2"


async def put(house: House, path: str, body: Any, **options: Any) -> Answer:
    return await ask(house, "PUT", f"/api/v1/secrets/{path}", headers=JSON, body=json.dumps(body).encode(), **options)


async def test_put_list_remove() -> None:
    async with open_house() as house:
        answer = await put(house, "build/npm", {"value": VALUE, "sources": ["b", "a", "b"]})
        assert answer.status == 200
        assert answer.json["sources"] == ["a", "b"]
        encoded = base64.b64encode(b"\xff\x00raw").decode()
        assert (await put(house, "run/key", {"value_base64": encoded})).status == 200
        login = json.dumps({"username": "u", "password": VALUE})
        answer = await put(house, "registry/Registry.Example:5000", {"value": login})
        assert answer.json["name"] == "registry.example:5000"
        listed = await ask(house, "GET", "/api/v1/secrets")
        assert [(each["kind"], each["name"]) for each in listed.json["secrets"]] == [
            ("build", "npm"),
            ("registry", "registry.example:5000"),
            ("run", "key"),
        ]
        assert set(listed.json["secrets"][0]) == {
            *("kind", "name", "sources", "repositories", "created_at", "updated_at", "readable")
        }
        assert listed.json["key"]["trouble"] == ""
        assert VALUE.encode() not in listed.body
        assert await house.control.secrets.value("npm", kind=SecretKind.BUILD, source="a") == VALUE.encode()
        assert await house.control.secrets.value("key", kind=SecretKind.RUN) == b"\xff\x00raw"
        answer = await ask(house, "DELETE", "/api/v1/secrets/build/npm")
        assert (answer.status, answer.body) == (204, b"")
        assert (await ask(house, "DELETE", "/api/v1/secrets/build/npm")).status == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "where"),
    [
        ("bild/x", {"value": VALUE}, 422, "kind"),
        ("build/x%20y", {"value": VALUE}, 422, "name"),
        ("build/..%2Fx", {"value": VALUE}, 404, None),
        ("build/" + "n" * 257, {"value": VALUE}, 422, "name"),
        ("registry/a@b", {"value": VALUE}, 422, "name"),
        ("registry/host", {"value": VALUE}, 422, "value"),
        ("build/x", {"value": ""}, 422, "value"),
        ("build/x", {}, 422, "value"),
        ("build/x", {"value": VALUE, "value_base64": "eA=="}, 422, "value"),
        ("build/x", {"value_base64": "?" + VALUE}, 422, "value_base64"),
        ("build/x", {"value": 7}, 422, "value"),
        ("build/x", {"valu": VALUE}, 422, "valu"),
        ("build/x", {"value": VALUE, "sources": ["a b"]}, 422, "sources"),
        ("build/x", {"value": VALUE, "repositories": ["*"]}, 422, "repositories"),
        ("build/x", {"value": "v" * (500 * 1024 + 1)}, 413, "value"),
    ],
)
async def test_what_is_refused(path: str, body: dict[str, Any], status: int, where: str | None) -> None:
    async with open_house() as house:
        answer = await put(house, path, body)
        assert answer.status == status, answer.body
        if where:
            assert answer.json["path"].endswith(where)
        assert VALUE.encode() not in answer.body
        assert (await ask(house, "GET", "/api/v1/secrets")).json["secrets"] == []


async def test_a_body_over_the_limit_and_other_forms() -> None:
    async with open_house() as house:
        answer = await put(house, "build/x", {"value": "v" * (1 << 20)})
        assert answer.status == 413
        answer = await ask(house, "PUT", "/api/v1/secrets/build/x", headers={"Content-Type": "text/plain"}, body=b"v")
        assert answer.status == 415
        assert (await ask(house, "PUT", "/api/v1/secrets/build/x", headers=JSON, body=b'{"value": "')).status == 400
        assert (await ask(house, "GET", "/api/v1/secrets/build/x")).status == 405
        assert (await ask(house, "POST", "/api/v1/secrets")).status == 405
        largest = base64.b64encode(b"v" * 500 * 1024).decode()
        assert (await put(house, "build/x", {"value_base64": largest})).status == 200


async def test_nobody_without_a_token() -> None:
    async with open_house() as house:
        assert (await put(house, "build/x", {"value": VALUE}, token=False)).status == 401
        for method, path in (("GET", ""), ("DELETE", "/build/x"), ("POST", "/rotate")):
            assert (await ask(house, method, f"/api/v1/secrets{path}", token=False)).status == 401


async def test_rotating(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with open_house() as house:
        await put(house, "build/x", {"value": VALUE})
        answer = await ask(house, "POST", "/api/v1/secrets/rotate")
        assert answer.status == 409
        assert "--new-key-file" in answer.json["advice"]
        body = json.dumps({"new_key_file": "relative"}).encode()
        assert (await ask(house, "POST", "/api/v1/secrets/rotate", headers=JSON, body=body)).status == 422


async def test_over_the_websocket() -> None:
    async with open_house() as house, talking(house) as talker:
        put = {"kind": "build", "name": "npm", "value": VALUE, "repositories": ["example.test/team/*"]}
        kept = await talker.result("secret.put", put)
        assert kept["repositories"] == ["example.test/team/*"]
        listed = await talker.result("secret.list", {})
        assert listed["secrets"] == [kept]
        assert VALUE not in json.dumps(listed)
        assert (await talker.error("secret.put", {**put, "kind": "x"}))["code"] == -32602
        assert (await talker.error("secret.put", {**put, "extra": 1}))["data"]["path"].endswith("extra")
        assert (await talker.error("secret.get", {"kind": "build", "name": "npm"}))["code"] == -32601
        assert await talker.result("secret.remove", {"kind": "build", "name": "npm"}) == {}
        assert (await talker.error("secret.remove", {"kind": "build", "name": "npm"}))["code"] == -32001
        assert (await talker.error("secret.rotate", {}))["code"] == -32002


async def test_the_client() -> None:
    async with open_house() as house, Client(house.address, TOKEN) as client:
        await put_secret(client, "build", "npm", b"\x00\xff", sources=["app"])
        await put_login(client, "https://index.docker.io/v1/", "u", VALUE)
        found = await list_secrets(client)
        assert [each["name"] for each in found["secrets"]] == ["npm", "docker.io"]
        assert await house.control.secrets.value("npm", kind=SecretKind.BUILD, source="app") == b"\x00\xff"
        await remove_secret(client, "registry", "docker.io")
        with pytest.raises(NotFound):
            await remove_secret(client, "registry", "docker.io")
        with pytest.raises(BadRequest):
            await rotate_key(client, "relative")


async def test_a_farm_without_a_key() -> None:
    control = Little()
    control.secrets = Vault(control.store, Keyring(KeyPlace()))
    async with open_house() as started:
        control.store = started.control.store
        control.secrets = Vault(control.store, Keyring(KeyPlace()))
        await control.secrets.load()
        async with open_house(control) as house:
            answer = await put(house, "build/x", {"value": VALUE})
            assert answer.status == 409
            assert answer.json["code"] == "no_secrets_key"
            assert "new-key" in answer.json["advice"]
            assert (await ask(house, "GET", "/api/v1/secrets")).json["key"] == {
                "id": "",
                "place": "nowhere",
                "trouble": "",
            }
