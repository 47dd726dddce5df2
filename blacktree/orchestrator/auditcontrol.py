"""What the doors may ask of the record of acts. `orchestrator.audit.Audit` is the answer."""

from typing import Protocol

from blacktree.audit import AuditEntry


class AuditControl(Protocol):
    """Who did what."""

    def note(self, entry: AuditEntry) -> None:
        """Put it on record soon (its `seq` is given here). Never waits, never raises."""
        ...

    async def entries(self, *, before: int | None = None, limit: int = 100) -> list[AuditEntry]:
        """Newest first, those with a lower number than `before`; `limit` is clamped to 1..1,000."""
        ...
