"""A secret as it is stored."""

from datetime import datetime

import msgspec

from blacktree.cipher import key_id
from blacktree.secret import Scope, SecretKind, SecretView


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """Kind, name and scope are bound to the body: changing one of them breaks the seal."""

    kind: SecretKind
    name: str
    scope: Scope
    body: bytes
    created_at: datetime
    updated_at: datetime

    def __repr__(self) -> str:
        return f"Sealed({self.path})"

    @property
    def path(self) -> str:
        """The name of its document."""
        return path_of(self.kind, self.name)

    @property
    def key(self) -> str:
        """The id of the key it was sealed with."""
        return key_id(self.body)

    @property
    def about(self) -> bytes:
        """What the body is bound to."""
        return about(self.kind, self.name, self.scope)

    def view(self, *, readable: bool) -> SecretView:
        """Everything but the value."""
        return SecretView(
            kind=self.kind,
            name=self.name,
            sources=self.scope.sources,
            repositories=self.scope.repositories,
            created_at=self.created_at,
            updated_at=self.updated_at,
            readable=readable,
        )


def about(kind: SecretKind, name: str, scope: Scope) -> bytes:
    """What a body is bound to."""
    return msgspec.msgpack.encode(["secret", kind, name, scope.sources, scope.repositories])


def path_of(kind: SecretKind, name: str) -> str:
    """The name of a secret's document."""
    return f"{kind}/{name}"
