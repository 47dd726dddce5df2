"""What the doors may ask about notifications. The promise; `orchestrator.notifydesk.NotifyDesk` is the answer."""

from datetime import datetime
from typing import Any, Protocol

import msgspec

from blacktree.notification import Target


class TargetView(msgspec.Struct, frozen=True, kw_only=True):
    """A target as the outside sees it, and how it fares: `waiting` deliveries, and `failures` in a row."""

    target: Target
    configured: bool = False
    waiting: int = 0
    failures: int = 0


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One try to deliver. `result`: `delivered`, `failed` (it is tried again) or `given_up`; `status` 0: no answer.

    `id`: the message's, the same at every try. `attempt` counts those of this life of the orchestrator.
    """

    id: str
    type: str
    at: datetime
    result: str
    attempt: int = 1
    status: int = 0
    seconds: float = 0.0
    error: str = ""


class NotifyControl(Protocol):
    """Targets hold names of secrets, never a value. All calls may raise `blacktree.errors`."""

    async def add(self, target: Target, *, actor: str = "") -> TargetView:
        """On record when this returns. Raises `Conflict` (the name is taken), `BadRequest` (it cannot work)."""
        ...

    async def edit(self, name: str, changes: dict[str, Any], *, actor: str = "") -> TargetView:
        """Replace these fields. What waits is tried at once. Raises `NotFound`, `BadRequest`, `Conflict`."""
        ...

    async def remove(self, name: str, *, actor: str = "") -> TargetView:
        """Answers what it was; what waited for it is dropped. Raises `NotFound`, `Conflict`."""
        ...

    def get(self, name: str) -> TargetView:
        """Raises `NotFound`."""
        ...

    def all(self) -> list[TargetView]:
        """By name."""
        ...

    def tried(self, name: str) -> list[Tried]:
        """The last tries, newest first. Raises `NotFound`."""
        ...

    async def test(self, name: str, *, actor: str = "") -> Tried:
        """Send one message of type `notify.test` now, and say how that went. Raises `NotFound`."""
        ...
