"""Declared sources, from a client's side."""

from collections.abc import Mapping
from typing import Any

from blacktree.client.calls import Client


async def add_source(farm: Client, source: Mapping[str, Any]) -> dict[str, Any]:
    """Declare one; answers it whole. Not sent again when the connection is lost: the name would be taken."""
    return await farm.call("source.add", source, repeat=False)


async def sources(farm: Client) -> list[dict[str, Any]]:
    """All of them, by name."""
    found: list[dict[str, Any]] = (await farm.call("source.list", {}))["sources"]
    return found


async def source(farm: Client, name: str) -> dict[str, Any]:
    """One. Raises `NotFound`."""
    return await farm.call("source.get", {"name": name})


async def edit_source(farm: Client, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Replace these fields; answers it whole."""
    return await farm.call("source.edit", {"name": name, "changes": dict(changes)})


async def remove_source(farm: Client, name: str) -> dict[str, Any]:
    """Forget it; answers what it was."""
    return await farm.call("source.remove", {"name": name}, repeat=False)
