"""The record of who did what: noted without waiting, written in order by one task, in pages, kept for so many days."""

from collections import deque
from datetime import timedelta
from functools import partial

import msgspec
import structlog
import trio

from blacktree.audit import AuditEntry
from blacktree.clock import now
from blacktree.errors import StorageFailed
from blacktree.storage.base import DocumentTable
from blacktree.storage.cursor import micros
from blacktree.strict import UNREADABLE

KIND = "audit"
PAGE_ENTRIES = 200
MOST_ENTRIES = 1000
MAX_PENDING = 20_000
LAST_WORDS_SECONDS = 0.3
GATHER_SECONDS = 0.1
_PRUNE_SECONDS = 3600.0
_PRUNE_PAGES = 100
_TOP = 10**17

log = structlog.get_logger()
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[AuditEntry]).decode


class Audit:
    """See `AuditControl`. An entry's number is its time in microseconds, or the next one."""

    def __init__(self, documents: DocumentTable, *, days: float) -> None:
        self._documents = documents
        self._days = days
        self._pending: deque[AuditEntry] = deque()
        self._arrived = trio.Event()
        self._page: list[AuditEntry] = []
        self._last = 0

    async def load(self) -> None:
        """Where the record ends; to be called once, before anything is noted."""
        for _, body in await self._documents.documents(KIND, limit=1):
            self._page = _read(body)
            self._last = self._page[-1].seq if self._page else 0

    def note(self, entry: AuditEntry) -> None:
        """See `AuditControl.note`."""
        if len(self._pending) >= MAX_PENDING:
            log.error("act not on record: the store has not taken one for long", action=entry.action, by=entry.actor)
            return
        self._last = max(self._last + 1, micros(entry.time))
        self._pending.append(msgspec.structs.replace(entry, seq=self._last))
        self._arrived.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what was noted, and drop what is too old; waits out a store that cannot."""
        task_status.started()
        try:
            prune_at = trio.current_time()
            while True:
                if trio.current_time() >= prune_at:
                    prune_at = trio.current_time() + _PRUNE_SECONDS
                    await self._prune()
                with trio.move_on_at(prune_at):
                    await self._arrived.wait()
                    # Many acts at once cost one commit.
                    await trio.sleep(GATHER_SECONDS)
                    await self._write()
        finally:
            with trio.move_on_after(LAST_WORDS_SECONDS, shield=True):
                await self._write()

    async def _write(self) -> None:
        while self._pending:
            if len(self._page) >= PAGE_ENTRIES:
                self._page = []
            taken = [self._pending[n] for n in range(min(len(self._pending), PAGE_ENTRIES - len(self._page)))]
            page = [*self._page, *taken]
            try:
                await self._documents.revise(KIND, _name(page[0].seq), partial(_instead, _encode(page)))
            except StorageFailed as error:
                log.error("acts not on record", reason=str(error))
                await trio.sleep(1)
                continue
            self._page = page
            for _ in taken:
                self._pending.popleft()
        self._arrived = trio.Event()

    async def _prune(self) -> None:
        if not self._days:
            return
        oldest = micros(now() - timedelta(days=self._days))
        try:
            while pages := await self._documents.documents(KIND, after=_name(oldest), limit=_PRUNE_PAGES):
                gone = [name for name, body in pages if (found := _read(body)) == [] or found[-1].seq < oldest]
                for name in gone:
                    await self._documents.revise(KIND, name, lambda _: None)
                if len(gone) < len(pages):
                    return
        except StorageFailed as error:
            log.error("old acts not dropped", reason=str(error))

    async def entries(self, *, before: int | None = None, limit: int = 100) -> list[AuditEntry]:
        """See `AuditControl.entries`."""
        limit = max(1, min(limit, MOST_ENTRIES))
        end = _TOP if before is None else max(0, min(before, _TOP))
        found: list[AuditEntry] = []
        after = _name(end)
        while len(found) < limit:
            pages = await self._documents.documents(KIND, after=after, limit=2)
            if not pages:
                break
            for name, body in pages:
                after = name
                found += [entry for entry in reversed(_read(body)) if entry.seq < end]
        return found[:limit]


def _instead(body: bytes, before: bytes | None) -> bytes:
    return body


def _name(seq: int) -> str:
    """A page's name, by its first entry: the newest page comes first."""
    return f"{_TOP - seq:017d}"


def _read(body: bytes) -> list[AuditEntry]:
    try:
        return _decode(body)
    except UNREADABLE:
        log.error("a page of the record of acts cannot be read")
        return []
