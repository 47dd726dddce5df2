"""What the doors may ask about tokens. `orchestrator.tokens.Tokens` is the answer."""

from typing import Protocol

from blacktree.token import NewToken, Token


class TokenControl(Protocol):
    """The tokens on record; the one of the state directory is the door's own and not among them."""

    async def create(self, wanted: NewToken, *, actor: str = "") -> tuple[Token, str]:
        """A new token and what its bearer shows, which is told here and never again. Durable on return.

        Raises `BadRequest`, `Conflict` (the name is in use, or too many tokens).
        """
        ...

    async def revoke(self, name: str, *, actor: str = "") -> Token:
        """End a token, by id or name, at once and for good; once more is no error. Raises `NotFound`."""
        ...

    def all(self) -> list[Token]:
        """Every token, ended ones too for a month, oldest first."""
        ...

    def get(self, name: str) -> Token:
        """By id, or by the name of one that is valid. Raises `NotFound`."""
        ...

    def shown(self, text: str) -> Token | None:
        """The valid token that this text is, if it is one; in a time that tells nothing."""
        ...

    def valid(self, identity: str) -> Token | None:
        """The token of this id, if it is still valid."""
        ...

    async def wait_changed(self, since: int) -> int:
        """Waits until a token was made or revoked since this version; answers the newest. Start with 0."""
        ...
