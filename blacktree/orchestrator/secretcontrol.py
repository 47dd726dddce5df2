"""What the doors may ask about secrets: everything but their values. `orchestrator.vault.Vault` is the answer."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from blacktree.secret import SecretKind, SecretView


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """A finished rotation: how many secrets were sealed anew, with which key, and what is left for the operator."""

    sealed: int
    key: str
    next: str = ""


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """The farm's key, without the key: `id` (empty: none yet), where it is from, and what is wrong with it, if so."""

    id: str
    place: str
    trouble: str


class SecretControl(Protocol):
    """All calls may raise `blacktree.errors`; cancelling one leaves a secret as it was or as it was to be."""

    async def put(
        self,
        name: str,
        value: bytes,
        *,
        kind: SecretKind,
        sources: Sequence[str] = (),
        repositories: Sequence[str] = (),
        actor: str = "",
    ) -> SecretView:
        """Keep a value (and scope) under this name, in place of an earlier one. Durable on return.

        Raises `BadRequest` (name, scope, form), `TooLarge`, `Locked` (no key, or not the right one).
        """
        ...

    async def remove(self, name: str, *, kind: SecretKind, actor: str = "") -> None:
        """Forget it; needs no key. Raises `NotFound`."""
        ...

    async def listed(self) -> list[SecretView]:
        """All of them, by kind and name, without values."""
        ...

    def key(self) -> KeyView:
        """How the farm's key stands."""
        ...

    async def rotate(self, new_key_file: str = "", *, actor: str = "") -> Rotated:
        """Seal everything with another key; at every moment until the end the old and the new one both open it.

        Without a file the farm makes a key in its own; else it reads (only) that one, and keeps to it. Called again
        after a crash it goes on. Raises `BadRequest` with advice.
        """
        ...
