"""Secrets: kept, forgotten, listed by name; never read."""

from typing import Annotated

from msgspec import Meta

from blacktree.api import messages, shapes
from blacktree.api import secrets as asked
from blacktree.api.table.operation import Http, Operation, Socket
from blacktree.orchestrator.secretcontrol import Rotated
from blacktree.role import Role
from blacktree.secret import SecretKind, SecretView

_ONE = "/api/v1/secrets/{kind}/{name}"
# A name of letters, digits, `.`, `_` and `-`; of the kinds `registry` and `forge` a host, with or without a port.
_NAMES = {"kind": SecretKind, "name": Annotated[str, Meta(extra_json_schema={"format": "secret-name"})]}
_KEY = ("secret_locked", "no_secrets_key", "secrets_key", "secrets_key_file", "invalid_key")

SECRETS = (
    Operation(
        name="secret.list",
        summary="All secrets without their values, and how the farm's key stands.",
        role=Role.ADMIN,
        farm=True,
        errors=("bad_query", "invalid"),
        result=shapes.Secrets,
        http=Http(verb="GET", path="/api/v1/secrets", query=messages.Nothing),
        socket=Socket(params=messages.Nothing),
    ),
    Operation(
        name="secret.put",
        summary="Keep a value under a name, in place of an earlier one.",
        role=Role.ADMIN,
        farm=True,
        errors=(
            "invalid",
            "bad_request",
            "malformed",
            "unknown_kind",
            "empty_value",
            "too_large",
            "storage_failed",
            *_KEY,
        ),
        result=SecretView,
        http=Http(verb="PUT", path=_ONE, names=_NAMES, query=messages.Nothing, body=asked.SecretBody, required=True),
        socket=Socket(params=asked.PutSecret),
    ),
    Operation(
        name="secret.remove",
        summary="Forget a secret.",
        role=Role.ADMIN,
        farm=True,
        errors=("not_found", "unknown_kind", "bad_request", "storage_failed"),
        http=Http(verb="DELETE", path=_ONE, names=_NAMES, query=messages.Nothing, statuses=(204,)),
        socket=Socket(params=asked.RemoveSecret),
    ),
    Operation(
        name="secret.rotate",
        summary="Seal every secret with another key.",
        role=Role.ADMIN,
        farm=True,
        errors=("invalid", "malformed", "storage_failed", *_KEY),
        result=Rotated,
        http=Http(verb="POST", path="/api/v1/secrets/rotate", query=messages.Nothing, body=asked.RotateKey),
        socket=Socket(params=asked.RotateKey),
    ),
)
