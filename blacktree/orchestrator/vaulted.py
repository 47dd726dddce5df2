"""What webhooks and statuses need of the vault."""

from typing import Protocol

from blacktree.secret import SecretKind


class Vaulted(Protocol):
    """`orchestrator.vault.Vault`, as far as its values are read by name."""

    async def value(
        self, name: str, *, kind: SecretKind, source: str | None = None, repository: str | None = None
    ) -> bytes | None:
        """The value, or None if there is none that this source may use."""
        ...

    async def permits(self, name: str, *, kind: SecretKind, source: str | None, repository: str | None) -> bool:
        """Whether there may be one that this source may use; opens nothing. Raises `StorageFailed`."""
        ...
