"""The descriptions of the API: well formed, with examples that are true, and the page that is made of them."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from blacktree.api import asyncapi, deployments, messages, openapi, secrets, shapes
from blacktree.api.examples import EXAMPLES
from blacktree.api.table import METHODS, OPERATIONS
from blacktree.api.table.codes import KIND_OF
from blacktree.deployment import DeployImage
from blacktree.orchestrator.control import WorkerView
from blacktree.runspec import RunSpec
from blacktree.source import Source
from blacktree.spec import JobSpec, checked
from tests.api.little import open_house
from tests.api.talk import ask

ROOT = Path(__file__).parents[2]
BOTH = [openapi.document(), asyncapi.document()]
KINDS: dict[str, type[msgspec.Struct]] = {
    **{kind.__name__: kind for kind in (DeployImage, JobSpec, RunSpec, Source, WorkerView, deployments.DeployJob)},
    **{kind.__name__: kind for kind in (shapes.Job, shapes.EventPage, shapes.Hits, shapes.Problem, shapes.RpcError)},
    **{kind.__name__: kind for kind in (messages.Cancel, messages.Drain, secrets.SecretBody)},
}


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


@pytest.mark.parametrize("document", BOTH, ids=["openapi", "asyncapi"])
def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in set(references(document)):
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


@pytest.mark.parametrize("document", BOTH, ids=["openapi", "asyncapi"])
def test_every_schema_is_one_and_its_examples_fit(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        assert re.fullmatch(r"[A-Za-z]+", name)
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
        whole = {"components": document["components"], "$ref": f"#/components/schemas/{name}"}
        for example in schema.get("examples", ()):
            jsonschema_rs.validator_for(whole).validate(example)


def test_every_example_is_what_the_door_would_take_or_say() -> None:
    assert set(EXAMPLES) == set(KINDS)
    for name, example in EXAMPLES.items():
        value = msgspec.convert(example, KINDS[name])
        if isinstance(value, JobSpec):
            assert checked(value) is value


def test_openapi_has_what_its_specification_asks_for() -> None:
    document = openapi.document()
    assert (document["openapi"], document["info"]["title"]) == ("3.1.0", "Blacktree")
    names = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(set(names)) == len(names)
    assert set(names) == {name for name, each in OPERATIONS.items() if each.http} - {
        name for name in OPERATIONS if name.startswith("page.")
    }
    for path, verbs in document["paths"].items():
        for operation in verbs.values():
            given = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
            assert given == set(re.findall(r"\{(\w+)\}", path))
            assert all(re.fullmatch(r"[1-5]\d\d", status) for status in operation["responses"])
            assert all(response["description"] for response in operation["responses"].values())


def test_asyncapi_has_what_its_specification_asks_for() -> None:
    document = asyncapi.document()
    assert document["asyncapi"] == "3.0.0"
    received = {name for name, each in document["operations"].items() if each["action"] == "receive"}
    assert received == set(METHODS)
    sent = {name for name, each in document["operations"].items() if each["action"] == "send"}
    assert "job.events.notification" in sent
    for message in document["components"]["messages"].values():
        jsonschema_rs.meta.validate(message["payload"])


def test_every_code_of_the_table_has_its_number_and_its_row() -> None:
    told = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    for operation in OPERATIONS.values():
        for code in operation.errors:
            assert code in KIND_OF
            assert f"`{code}`" in told
    assert len(KIND_OF) > 40


async def test_they_are_served_to_who_may() -> None:
    async with open_house() as house:
        for name, key in (("openapi", "openapi"), ("asyncapi", "asyncapi")):
            answer = await ask(house, "GET", f"/api/v1/{name}.json")
            assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
            assert answer.json[key][0] == "3"
            assert (await ask(house, "GET", f"/api/v1/{name}.json", token=False)).status == 401


def test_the_page_is_as_new_as_the_table() -> None:
    done = subprocess.run([sys.executable, ROOT / "bin" / "api-page", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
