"""`Deliveries`: which webhooks have come. What was answered with 202 is on record; a redelivery changes nothing."""

import hashlib
from collections import OrderedDict
from datetime import datetime, timedelta

import msgspec
import structlog
import trio

from blacktree.clock import new_id, now
from blacktree.errors import StorageFailed
from blacktree.orchestrator.forges.base import Event
from blacktree.storage.base import DocumentTable
from blacktree.strict import UNREADABLE

KIND = "delivery"
_GROUP = 64

log = structlog.get_logger()


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery on record. Names sort by arrival. Once it is done (`outcome`), what it said is forgotten.

    `keys`: what makes another one the same: the forge's id for it, and the digest of what was signed.
    `identity`: of these the one that a replay cannot change.
    """

    name: str
    forge: str
    delivery: str
    identity: str
    keys: list[str]
    received_at: datetime
    sources: list[str] = []
    event: Event | None = None
    outcome: list[str] | None = None


class Deliveries:
    """Bounded in number and age. One process writes, so what is in memory decides."""

    def __init__(self, documents: DocumentTable, *, days: float, most: int) -> None:
        self._documents = documents
        self._days = days
        self._most = most
        self._known: dict[str, str] = {}
        self._kept: OrderedDict[str, Entry] = OrderedDict()
        self._entering: dict[str, trio.Event] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def load(self) -> list[Entry]:
        """From the record; answers those whose work is not done, in the order of arrival. To be called once."""
        after = ""
        while page := await self._documents.documents(KIND, after=after):
            for name, body in page:
                try:
                    self._remember(msgspec.json.decode(body, type=Entry))
                except UNREADABLE as error:
                    log.error("a delivery's record is damaged", name=name, reason=str(error))
            after = page[-1][0]
        return [entry for entry in self._kept.values() if entry.outcome is None]

    async def earlier(self, keys: list[str]) -> str | None:
        """The name of a delivery that is the same, if one came; waits for one that is being put on record."""
        while (under_way := next((self._entering[key] for key in keys if key in self._entering), None)) is not None:
            await under_way.wait()
        return next((self._known[key] for key in keys if key in self._known), None)

    async def enter(
        self, *, forge: str, delivery: str, identity: str, keys: list[str], sources: list[str], event: Event
    ) -> Entry:
        """Put it on record; to be called right after `earlier`. Durable on return. Raises `StorageFailed`.

        Cancelled in the middle it may be on record: `load` finds it at the next start."""
        entry = Entry(
            name=new_id(),
            forge=forge,
            delivery=delivery,
            identity=identity,
            keys=keys,
            received_at=now(),
            sources=sources,
            event=event,
        )
        body = msgspec.json.encode(entry)
        entered = trio.Event()
        self._entering |= dict.fromkeys(keys, entered)
        try:
            await self._documents.revise(KIND, entry.name, lambda before: body)
            self._remember(entry)
        finally:
            for key in keys:
                self._entering.pop(key, None)
            entered.set()
        return entry

    async def done(self, entry: Entry, outcome: list[str]) -> None:
        """Its work is done. Raises `StorageFailed`; then it will be done once more, which changes nothing."""
        entry = msgspec.structs.replace(entry, event=None, outcome=outcome)
        body = msgspec.json.encode(entry)
        await self._documents.revise(KIND, entry.name, lambda before: body)
        self._kept[entry.name] = entry

    async def forget(self) -> int:
        """Drop what is done and too old, or too many; answers how many."""
        before = now() - timedelta(days=self._days)
        excess = len(self._kept) - self._most
        gone: list[Entry] = []
        for entry in self._kept.values():
            if entry.outcome is None:
                continue
            if entry.received_at >= before and len(gone) >= excess:
                break
            gone.append(entry)
        for entry in gone:
            try:
                await self._documents.revise(KIND, entry.name, lambda before: None)
            except StorageFailed as error:
                log.error("old deliveries not forgotten", reason=str(error))
                return 0
            self._kept.pop(entry.name, None)
            for key in entry.keys:
                if self._known.get(key) == entry.name:
                    del self._known[key]
        return len(gone)

    def _remember(self, entry: Entry) -> None:
        self._kept[entry.name] = entry
        for key in entry.keys:
            self._known.setdefault(key, entry.name)


def keys_of(forge: str, delivery: str, body: bytes, *, body_is_signed: bool) -> list[str]:
    """What makes two deliveries the same, the one that cannot be forged first.

    The id is a header, which no signature covers: where the body is signed, its digest stops a replay under another id.
    """
    digest = f"{forge}:sha256:{hashlib.sha256(body).hexdigest()}"
    if not delivery:
        return [digest]
    named = f"{forge}:id:{delivery[:200]}"
    return [digest, named] if body_is_signed else [named]
