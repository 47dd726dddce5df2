"""The AsyncAPI 3.0 description of the websocket, made of the table."""

from functools import cache
from typing import Any

import msgspec

from blacktree import __version__
from blacktree.api import shapes
from blacktree.api.describe import Schema, Schemas, codes_of
from blacktree.api.table import METHODS, Notification, Operation

_CHANNEL = {"$ref": "#/channels/ws"}
_ABOUT = (
    "JSON-RPC 2.0, one JSON object a text frame. A request without `id` gets no answer. A watch is answered once with "
    "its number, and goes on with notifications until it ends or is ended."
)
_ID: Schema = {"description": "Echoed.", "type": ["string", "number", "null"]}


@cache
def asyncapi() -> bytes:
    """The description as JSON."""
    return msgspec.json.encode(document())


def document() -> dict[str, Any]:
    """The description as plain values."""
    notifications = _notifications()
    kinds: list[Any] = [shapes.RpcError]
    for each in METHODS.values():
        kinds += [each.socket.params if each.socket else None, each.result]
    schemas = Schemas([*kinds, *(each.params for each in notifications.values())])
    messages: dict[str, Schema] = {"error": _error(schemas)}
    operations: dict[str, Schema] = {}
    for name, operation in METHODS.items():
        messages[f"{name}.request"] = _request(operation, schemas)
        messages[f"{name}.result"] = _result(operation, schemas)
        operations[name] = {
            "action": "receive",
            "channel": _CHANNEL,
            "summary": operation.summary,
            "messages": [_in_channel(f"{name}.request")],
            "reply": {"channel": _CHANNEL, "messages": [_in_channel(f"{name}.result"), _in_channel("error")]},
            "x-role": operation.role.value,
            "x-errors": codes_of(operation),
        }
    for name, notification in notifications.items():
        messages[f"{name}.notification"] = _notification(notification, schemas)
        operations[f"{name}.notification"] = {
            "action": "send",
            "channel": _CHANNEL,
            "summary": notification.summary,
            "messages": [_in_channel(f"{name}.notification")],
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Blacktree",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "door": {
                "host": "127.0.0.1:8080",
                "protocol": "ws",
                "security": [{"$ref": "#/components/securitySchemes/token"}],
            }
        },
        "channels": {
            "ws": {
                "address": "/ws",
                "servers": [{"$ref": "#/servers/door"}],
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": schemas.components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _notifications() -> dict[str, Notification]:
    sockets = [each.socket for each in METHODS.values() if each.socket is not None]
    return {each.name: each for socket in sockets for each in socket.notifications}


def _in_channel(message: str) -> Schema:
    return {"$ref": f"#/channels/ws/messages/{message}"}


def _request(operation: Operation, schemas: Schemas) -> Schema:
    assert operation.socket is not None
    fields = {"id": _ID, "method": {"const": operation.name}, "params": schemas.of(operation.socket.params)}
    return _message(operation.name, fields, ["method"])


def _result(operation: Operation, schemas: Schemas) -> Schema:
    result = schemas.of(operation.result) if operation.result is not None else {"type": "object"}
    return _message(f"{operation.name}, answered", {"id": _ID, "result": result}, ["id", "result"])


def _notification(notification: Notification, schemas: Schemas) -> Schema:
    fields = {"method": {"const": notification.name}, "params": schemas.of(notification.params)}
    return _message(notification.name, fields, ["method", "params"])


def _error(schemas: Schemas) -> Schema:
    return _message("refused", {"id": _ID, "error": schemas.of(shapes.RpcError)}, ["id", "error"])


def _message(title: str, fields: dict[str, Schema], required: list[str]) -> Schema:
    properties = {"jsonrpc": {"const": "2.0"}, **fields}
    return {"title": title, "payload": {"type": "object", "properties": properties, "required": ["jsonrpc", *required]}}
