"""Rows of any table that cannot be read: told, passed over or put aside, and everything else goes on."""

import sqlite3
from pathlib import Path

import pytest
import trio

from blacktree.broker.base import execute_queue
from blacktree.errors import StorageFailed
from blacktree.orchestrator import (
    audit,
    clonetokens,
    deliveries,
    notifier,
    publications,
    scaler,
    sources,
    statuses,
    targets,
    tokens,
    vault,
)
from blacktree.storage.base import Outgoing, QueueItem
from blacktree.storage.sqlite import SqliteStore
from blacktree.storage.staging import encode_records
from tests.orchestrator.conftest import open_house
from tests.parts.farm import SLOW

# No message at all, none of this shape, and strings that are no text: as JSON and as MessagePack.
NO_TEXT = b",".join(b'"%b":"\xff"' % name for name in (b"id", b"name", b"job_id", b"kind", b"repository", b"target"))
RUBBISH = [b"\xc1rubbish", b"", b"{%b}" % NO_TEXT, b"\x83\xa2id\xa1\xff\xa4name\xa1\xff\xa4kind\xa1\xff"]


KEEPERS = (audit, clonetokens, deliveries, notifier, publications, scaler, sources, statuses, targets, tokens, vault)
NAMES = ("KIND", "NAMES", "IMAGES", "DOCUMENTS", "LOG_KIND")
KINDS = {getattr(module, name) for module in KEEPERS for name in NAMES if hasattr(module, name)}


@pytest.mark.parametrize("rubbish", RUBBISH)
async def test_in_the_store(tmp_path: Path, rubbish: bytes) -> None:
    store = SqliteStore(tmp_path / "state")
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        ids = await store.queue_put("q", [QueueItem(body=b"%d" % number) for number in range(5)])
        await store.note("one", "")
        await store.note("two", "")
        nursery.cancel_scope.cancel()
    with sqlite3.connect(tmp_path / "state" / "blacktree.db") as connection:
        connection.executemany("UPDATE queue SET body = ? WHERE id = ?", [(rubbish, id) for id in ids[:3]])
        connection.execute("UPDATE farm SET body = ? WHERE seq = 1", (rubbish,))
        connection.executemany("INSERT INTO outbox VALUES (?, ?, ?)", [(id, f"job{id}", rubbish) for id in (1, 2, 3)])
        row = Outgoing(kind="ticket", job_id="good", id=4, body=b"{}")
        connection.execute("INSERT INTO outbox VALUES (4, 'good', ?)", (encode_records(row),))
    store = SqliteStore(tmp_path / "state")
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        assert [item.body for item in await store.queue_take("q", 1, ())] == [b"3"]
        assert [item.body for item in await store.queue_take("q", 10, {ids[3]})] == [b"4"]
        assert (await store.queue_depth("q"), await store.queue_depth("q.damaged")) == (2, 3)
        # A whole page of them is not the end.
        assert [row.job_id for row in await store.outgoing(limit=2)] == ["good"]
        assert [(event.seq, event.type) for event in await store.noted(1)][:2] == [(1, "event_damaged"), (2, "two")]
        told: set[tuple[str, str]] = set()
        expected = {("message_damaged", f"q/{id}") for id in ids[:3]}
        expected |= {("outbox_damaged", f"job{id}") for id in (1, 2, 3)}
        with trio.fail_after(SLOW):
            while not expected <= told:
                told = {(event.type, event.subject) for event in await store.noted(1)}
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("rubbish", RUBBISH[2:])
async def test_in_a_farm(tmp_path: Path, rubbish: bytes) -> None:
    """A document of every kind, a job, a message and what was to be told: the farm starts and builds."""
    async with open_house(tmp_path) as house:
        bad = await house.submit()
        good = await house.submit()
    with sqlite3.connect(tmp_path / "state" / "blacktree.db") as connection:
        rows = [(kind, "bad", rubbish) for kind in KINDS]
        connection.executemany("INSERT OR REPLACE INTO document VALUES (?, ?, ?)", rows)
        connection.execute("UPDATE job SET body = ? WHERE id = ?", (rubbish, bad))
        connection.execute("INSERT INTO outbox VALUES (1000000, ?, ?)", (bad, rubbish))
        row = (1_000_000, execute_queue("default"), 9, 0, rubbish)
        connection.execute("INSERT INTO queue VALUES (?, ?, ?, ?, ?)", row)
        connection.execute("UPDATE farm SET body = ? WHERE seq = 1", (rubbish,))
    async with open_house(tmp_path) as house:
        await house.worker(slots=1, automatic=True)
        with trio.fail_after(SLOW):
            assert (await house.finished(good)).state == "succeeded"
        with pytest.raises(StorageFailed):
            await house.control.job(bad)
