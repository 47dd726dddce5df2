"""What one can ask of a farm about its secrets. Values go in only."""

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from blacktree.client.calls import Client


async def put_secret(
    client: Client,
    kind: str,
    name: str,
    value: bytes,
    *,
    sources: Sequence[str] = (),
    repositories: Sequence[str] = (),
) -> dict[str, Any]:
    """Keep a value; answers what the list shows of it. Raises `BadRequest`, `Conflict` (no key), …"""
    params = {"kind": kind, "name": name, "value_base64": base64.b64encode(value).decode()}
    return await client.call("secret.put", {**params, "sources": list(sources), "repositories": list(repositories)})


async def put_login(
    client: Client,
    host: str,
    username: str,
    password: str,
    *,
    sources: Sequence[str] = (),
    repositories: Sequence[str] = (),
) -> dict[str, Any]:
    """Keep a registry's login."""
    value = msgspec.json.encode({"username": username, "password": password})
    return await put_secret(client, "registry", host, value, sources=sources, repositories=repositories)


async def remove_secret(client: Client, kind: str, name: str) -> None:
    """Forget it. Raises `NotFound`. Not sent again when the connection is lost."""
    await client.call("secret.remove", {"kind": kind, "name": name}, repeat=False)


async def list_secrets(client: Client) -> dict[str, Any]:
    """`{"secrets": [...], "key": {"id", "place", "trouble"}}`."""
    return await client.call("secret.list", {})


async def rotate_key(client: Client, new_key_file: str = "") -> dict[str, Any]:
    """`{"sealed", "key", "next"}`. Asked again after a lost connection it goes on where it was."""
    return await client.call("secret.rotate", {"new_key_file": new_key_file}, repeat=False)
