"""What one can ask of a farm about its tokens, login links, and who did what."""

from collections.abc import Sequence
from typing import Any

from blacktree.client.calls import Client


async def create_token(
    client: Client, name: str, role: str, *, repositories: Sequence[str] = (), seconds: float | None = None
) -> dict[str, Any]:
    """`{"token": {...}, "secret": "bt_…"}`; the secret is told here alone.

    Not sent again when the connection is lost.
    """
    wanted = {"name": name, "role": role, "repositories": list(repositories), "expires_in_seconds": seconds}
    return await client.call("token.create", wanted, repeat=False)


async def list_tokens(client: Client) -> dict[str, Any]:
    """`{"tokens": [...]}`, without secrets."""
    return await client.call("token.list", {})


async def revoke_token(client: Client, name: str) -> dict[str, Any]:
    """End a token by id or name; answers it. Raises `NotFound`, `Conflict` (the farm's own)."""
    return await client.call("token.revoke", {"name": name})


async def login_link(client: Client, token: str | None = None) -> dict[str, Any]:
    """`{"url", "token", "expires_at"}`: lets one browser in, once."""
    return await client.call("token.link", {"token": token}, repeat=False)


async def own_token(client: Client) -> dict[str, Any]:
    """The token that this client has."""
    return await client.call("token.self", {})


async def audit_page(client: Client, *, before: int | None = None, limit: int = 100) -> dict[str, Any]:
    """`{"entries": [...], "before": n or None}`, newest first."""
    return await client.call("audit.list", {"before": before, "limit": limit})
