"""Both stores keep the contract; the SQLite one also with segments so small that every batch begins a new one."""

from pathlib import Path

import pytest
import trio

from blacktree.errors import StorageFailed
from blacktree.storage import open_store
from blacktree.storage.base import Store
from blacktree.storage.memory import MemoryStore
from blacktree.storage.sqlite import SqliteStore
from tests.contracts.store import StoreContract


class TestMemory(StoreContract):
    @pytest.fixture
    async def store(self, nursery: trio.Nursery) -> Store:
        store = MemoryStore()
        await nursery.start(store.run)
        return store


class TestSqlite(StoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path, nursery: trio.Nursery) -> Store:
        store = SqliteStore(tmp_path / "state")
        await nursery.start(store.run)
        return store


class TestSqliteSmallSegments(StoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path, nursery: trio.Nursery) -> Store:
        store = SqliteStore(tmp_path / "state", segment_bytes=300)
        await nursery.start(store.run)
        return store


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_store_that_does_not_run_says_so(kind: str, tmp_path: Path) -> None:
    store = open_store(None if kind == "memory" else str(tmp_path / "state"))
    for call in (store.counts, lambda: store.get("x"), lambda: store.note("a", "b"), lambda: store.meta("k", "v")):
        with pytest.raises(StorageFailed) as caught:
            await call()
        assert caught.value.code == "storage_closed"
    assert await store.health() != ""
