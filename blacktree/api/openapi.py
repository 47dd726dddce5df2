"""The OpenAPI 3.1 description of the HTTP side, made of the table."""

import re
from functools import cache
from typing import Any

import msgspec

from blacktree import __version__
from blacktree.api import shapes
from blacktree.api.describe import Schema, Schemas, phrase, statuses_of
from blacktree.api.table import ROUTES, Http, Operation
from blacktree.role import Role

_PROBLEM = "application/problem+json"
_NAMES = re.compile(r"\{(\w+)\}")
_ABOUT = (
    "Jobs, logs, workers and deployments of a Blacktree farm. Errors are problem details (RFC 9457); "
    "docs/errors.md lists their codes. The websocket at `/ws` is described at `/api/v1/asyncapi.json`."
)
_HEADERS: dict[str, tuple[str, ...]] = {
    "job.log": ("Range", "If-None-Match", "If-Range"),
    "deployment.log": ("Range", "If-None-Match", "If-Range"),
    "deployment.events": ("If-None-Match",),
    "job.events": ("If-None-Match",),
}
_HEADER_TEXTS = {
    "Range": "One range of bytes (RFC 9110, section 14).",
    "If-None-Match": "An ETag that is known already: 304 while it is the newest.",
    "If-Range": "With `Range`: the whole log instead, unless this is its ETag.",
    "Idempotency-Key": "Asked twice with one key, an equal request answers with the first one's result.",
}


@cache
def openapi() -> bytes:
    """The description as JSON."""
    return msgspec.json.encode(document())


def described() -> list[Operation]:
    """The operations that are part of the API: those of programs, not of pages."""
    return [each for each in ROUTES.values() if not each.name.startswith("page.")]


def document() -> dict[str, Any]:
    """The description as plain values."""
    operations = described()
    kinds: list[Any] = [shapes.Problem]
    for each in operations:
        if each.http is not None:
            kinds += [each.http.body, each.result, *each.http.names.values()]
    schemas = Schemas(kinds)
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        if each.http is not None:
            paths.setdefault(each.http.path, {})[each.http.verb.lower()] = _operation(each, each.http, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Blacktree",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}, {"session": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "blacktree_PORT",
                    "description": "A browser's session; its name ends with the port the door listens at.",
                },
            },
            "schemas": schemas.components,
        },
    }


def _operation(operation: Operation, http: Http, schemas: Schemas) -> Schema:
    value: Schema = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.name.partition(".")[0]],
        "x-role": operation.role.value,
        "parameters": [*_path(http, schemas), *_query(http), *_headers(operation, http)],
        "responses": _responses(operation, http, schemas),
    }
    if operation.role is Role.NONE:
        value["security"] = []
    if http.body is not None:
        schema = schemas.of(http.body)
        value["requestBody"] = {
            "required": http.required,
            "content": {kind: {"schema": schema if kind == "application/json" else {}} for kind in http.takes},
        }
    return value


def _path(http: Http, schemas: Schemas) -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _named(http, name, schemas)}
        for name in _NAMES.findall(http.path)
    ]


def _named(http: Http, name: str, schemas: Schemas) -> Schema:
    schema = schemas.of(http.names[name]) if name in http.names else {"type": "string"}
    return schema if "$ref" in schema else {**schema, "minLength": 1}


def _query(http: Http) -> list[Schema]:
    if http.query is None:
        return []
    fields, required = Schemas.fields(http.query)
    return [
        {"name": name, "in": "query", "required": name in required, "schema": schema} for name, schema in fields.items()
    ]


def _headers(operation: Operation, http: Http) -> list[Schema]:
    names = [*_HEADERS.get(operation.name, ()), *(["Idempotency-Key"] if http.keyed else [])]
    limits: dict[str, Schema] = {"Idempotency-Key": {"minLength": 1, "maxLength": 256}}
    return [
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": _HEADER_TEXTS[name],
            "schema": {"type": "string", **limits.get(name, {})},
        }
        for name in names
    ]


def _responses(operation: Operation, http: Http, schemas: Schemas) -> dict[str, Schema]:
    found: dict[str, Schema] = {}
    for status in http.statuses:
        found[str(status)] = {"description": phrase(status)}
        if status == 304:
            continue
        if operation.result is not None and http.media == "application/json":
            found[str(status)]["content"] = {http.media: {"schema": schemas.of(operation.result)}}
        elif operation.result is None and status != 204 and http.media != "application/json":
            found[str(status)]["content"] = {http.media: {"schema": {"type": "string"}}}
    problem = {_PROBLEM: {"schema": schemas.of(shapes.Problem)}}
    for status, codes in statuses_of(operation).items():
        told = ", ".join(f"`{code}`" for code in codes)
        found.setdefault(str(status), {"description": f"{phrase(status)}: {told}", "content": problem})
    return dict(sorted(found.items()))
