"""Targets of notifications, from a client's side."""

from collections.abc import Mapping
from typing import Any

from blacktree.client.calls import Client


async def add_target(farm: Client, target: Mapping[str, Any]) -> dict[str, Any]:
    """Declare one; answers it whole. Not sent again when the connection is lost: the name would be taken."""
    return await farm.call("notify.add", target, repeat=False)


async def targets(farm: Client) -> list[dict[str, Any]]:
    """All of them, by name."""
    found: list[dict[str, Any]] = (await farm.call("notify.list", {}))["targets"]
    return found


async def target(farm: Client, name: str) -> dict[str, Any]:
    """One. Raises `NotFound`."""
    return await farm.call("notify.get", {"name": name})


async def edit_target(farm: Client, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Replace these fields; answers it whole."""
    return await farm.call("notify.edit", {"name": name, "changes": dict(changes)})


async def remove_target(farm: Client, name: str) -> dict[str, Any]:
    """Forget it; answers what it was."""
    return await farm.call("notify.remove", {"name": name}, repeat=False)


async def deliveries(farm: Client, name: str) -> list[dict[str, Any]]:
    """The last tries, newest first."""
    found: list[dict[str, Any]] = (await farm.call("notify.log", {"name": name}))["deliveries"]
    return found


async def test_target(farm: Client, name: str) -> dict[str, Any]:
    """Send one message now; answers how that went."""
    return await farm.call("notify.test", {"name": name}, repeat=False)
