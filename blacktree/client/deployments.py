"""Deployments, from a client's side."""

import secrets
from collections.abc import Mapping
from typing import Any

from blacktree.client.calls import Client


async def deploy(farm: Client, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """A new version, on record when this returns: `{"deployment", "version", "from_seq", "job"}`.

    `wanted` is a job's spec with `run`, or `image`, `run` and maybe `pool`. An image is not sent again when the
    connection is lost: it might make two versions.
    """
    if "repository" not in wanted:
        return await farm.call("deployment.deploy", wanted, repeat=False)
    key = wanted.get("idempotency_key") or f"auto-{secrets.token_hex(12)}"
    return await farm.call("deployment.deploy", {**wanted, "idempotency_key": key})


async def deployments(farm: Client) -> list[dict[str, Any]]:
    """All of them, by name."""
    found: list[dict[str, Any]] = (await farm.call("deployment.list", {}))["deployments"]
    return found


async def deployment(farm: Client, name: str) -> dict[str, Any]:
    """One. Raises `NotFound`."""
    return await farm.call("deployment.get", {"name": name})


async def stop(farm: Client, name: str) -> dict[str, Any]:
    """Stop it, and wait until its containers are gone."""
    return await farm.call("deployment.stop", {"name": name})


async def restart(farm: Client, name: str) -> dict[str, Any]:
    """New containers, or the last version again. Not sent again when the connection is lost: they would be two."""
    return await farm.call("deployment.restart", {"name": name}, repeat=False)


async def rollback(farm: Client, name: str, version: int | None = None) -> dict[str, Any]:
    """A new version like an earlier one; answers as `deploy`. Not sent again when the connection is lost."""
    return await farm.call("deployment.rollback", {"name": name, "version": version}, repeat=False)


async def delete(farm: Client, name: str, *, secrets: bool = False) -> dict[str, Any]:
    """Forget a deployment that is stopped, with its log (and the run secrets that only it names); what it was."""
    return await farm.call("deployment.delete", {"name": name, "secrets": secrets}, repeat=False)


async def events(farm: Client, name: str, from_seq: int = 1, *, limit: int = 1000) -> dict[str, Any]:
    """`{"events": [...], "next_seq": n, "first_seq": n}` of its log; empty past the end."""
    return await farm.call("deployment.events", {"name": name, "from_seq": from_seq, "limit": limit})
