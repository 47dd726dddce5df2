"""What the doors may ask of sources and webhooks. The promises; `sources.Sources` and `hooks.Hooks` are the answers."""

from typing import Any, Protocol

import msgspec

from blacktree.source import Source


class SourceView(msgspec.Struct, frozen=True, kw_only=True):
    """A source as the outside sees it. `configured`: it is in the configuration file and can be changed only there."""

    source: Source
    configured: bool = False


class SourceControl(Protocol):
    """Declared sources. They hold names of secrets, never a value. All calls may raise `blacktree.errors`."""

    async def add(self, source: Source, *, actor: str = "") -> SourceView:
        """On record when this returns. Raises `Conflict` (the name is taken), `BadRequest` (it cannot work)."""
        ...

    async def edit(self, name: str, changes: dict[str, Any], *, actor: str = "") -> SourceView:
        """Replace these fields. Raises `NotFound`, `BadRequest`, `Conflict` (it is in the configuration file)."""
        ...

    async def remove(self, name: str, *, actor: str = "") -> SourceView:
        """Answers what it was (of a damaged record: its name). Its jobs go on. Raises `NotFound`, `Conflict`."""
        ...

    def get(self, name: str) -> SourceView:
        """Raises `NotFound`."""
        ...

    def all(self) -> list[SourceView]:
        """By name."""
        ...

    def door_at(self, port: int) -> None:
        """The door listens at this port: an address there is ourselves, and no source."""
        ...


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook's request as it came. `headers` by lower-case name; `source`: the one named in the path, if any."""

    forge: str
    source: str | None
    headers: dict[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"Delivery({self.forge!r}, {self.source!r}, {len(self.body)} bytes)"


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a delivery: `accepted` (on record, jobs follow), `known` (it came before), `ignored`, `pong`."""

    status: str
    delivery: str = ""
    reason: str = ""
    sources: list[str] = []


class HookControl(Protocol):
    """Webhooks."""

    async def receive(self, delivery: Delivery) -> Receipt:
        """Check the signature, then read it, put it on record, answer; what it asks for is done afterwards.

        Raises `NotAllowed` (`signature_missing`, `signature_wrong`), `BadRequest`, `NotFound` (no such forge),
        `Unavailable` (the store, or too many deliveries wait). Then nothing is on record.
        """
        ...
