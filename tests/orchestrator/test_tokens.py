"""Tokens and the record of acts, on disk."""

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
import trio

from blacktree.audit import AuditEntry
from blacktree.clock import now
from blacktree.errors import NotFound
from blacktree.orchestrator.audit import KIND, PAGE_ENTRIES, Audit
from blacktree.orchestrator.tokens import Tokens
from blacktree.role import Role
from blacktree.storage import open_store
from blacktree.storage.memory import MemoryStore
from blacktree.token import NewToken

SLOW = 40.0


async def test_tokens_outlive_a_restart_as_hashes(tmp_path: Path) -> None:
    with trio.fail_after(SLOW):
        secrets = []
        async with trio.open_nursery() as nursery:
            store = open_store(str(tmp_path))
            await nursery.start(store.run)
            tokens = Tokens(store)
            await tokens.load()
            for name in ("one", "two"):
                wanted = NewToken(name=name, role=Role.SUBMIT, repositories=["a.test/b/*"])
                secrets.append((await tokens.create(wanted, actor="me"))[1])
            with trio.CancelScope() as scope:
                scope.cancel()
                # Whoever asked has left before it was on record.
                await tokens.revoke("two", actor="me")
            nursery.cancel_scope.cancel()
        written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert b"one" in written
        assert not any(secret.split("_", 2)[2].encode() in written for secret in secrets)
        async with trio.open_nursery() as nursery:
            store = open_store(str(tmp_path))
            await nursery.start(store.run)
            tokens = Tokens(store)
            await tokens.load()
            one = tokens.shown(secrets[0])
            assert one is not None
            assert (one.name, one.role, one.repositories, one.created_by) == ("one", Role.SUBMIT, ("a.test/b/*",), "me")
            assert tokens.shown(secrets[1]) is None
            assert tokens.shown(secrets[0][:-1]) is None
            nursery.cancel_scope.cancel()


async def test_the_name_of_a_revoked_token_is_not_proposed() -> None:
    with trio.fail_after(SLOW):
        store = MemoryStore()
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            tokens = Tokens(store)
            await tokens.create(NewToken(name="ci", role=Role.VIEW), actor="me")
            with pytest.raises(NotFound, match="did you mean `ci`"):
                tokens.get("cii")
            await tokens.revoke("ci", actor="me")
            for name in ("ci", "cii"):
                with pytest.raises(NotFound, match="`blacktree token list` shows them"):
                    tokens.get(name)
            nursery.cancel_scope.cancel()


def _entry(number: int, days: float = 0.0) -> AuditEntry:
    time = now() - timedelta(days=days)
    return AuditEntry(time=time, actor="a", token="t", address="", via="http", action="x", target=str(number))


async def test_the_record_is_read_page_by_page_and_goes_on_after_a_restart() -> None:
    with trio.fail_after(SLOW):
        store = MemoryStore()
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            for part in range(2):
                audit = Audit(store, days=30)
                await audit.load()
                async with trio.open_nursery() as writing:
                    await writing.start(audit.run)
                    for number in range(PAGE_ENTRIES + 50):
                        audit.note(_entry(part * 1000 + number))
                    # What waits is written before it leaves.
                    writing.cancel_scope.cancel()
            wanted = [str(part * 1000 + number) for part in range(2) for number in range(PAGE_ENTRIES + 50)]
            found: list[AuditEntry] = []
            while page := await audit.entries(before=found[-1].seq if found else None, limit=77):
                found += page
            assert [entry.target for entry in reversed(found)] == wanted
            assert [entry.seq for entry in found] == sorted({entry.seq for entry in found}, reverse=True)
            nursery.cancel_scope.cancel()


async def test_what_is_too_old_is_dropped() -> None:
    with trio.fail_after(SLOW):
        store = MemoryStore()
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            audit = Audit(store, days=0)
            async with trio.open_nursery() as writing:
                await writing.start(audit.run)
                for number in range(PAGE_ENTRIES):
                    audit.note(_entry(number, days=40))
                audit.note(_entry(1000))
                writing.cancel_scope.cancel()
            assert len(await store.documents(KIND)) == 2
            audit = Audit(store, days=30)
            await audit.load()
            await nursery.start(audit.run)
            while len(await store.documents(KIND)) > 1:
                await trio.sleep(0.01)
            assert [entry.target for entry in await audit.entries()] == ["1000"]
            nursery.cancel_scope.cancel()


async def test_a_damaged_token_lets_nobody_in() -> None:
    with trio.fail_after(SLOW):
        store = MemoryStore()
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            await store.revise("token", "abcdefgh", lambda _: b"garbage")
            await store.revise("token", "bcdefghi", lambda _: msgspec.msgpack.encode({"id": 1}))
            tokens = Tokens(store)
            await tokens.load()
            assert tokens.all() == []
            assert tokens.shown("bt_abcdefgh_x") is None
            nursery.cancel_scope.cancel()
