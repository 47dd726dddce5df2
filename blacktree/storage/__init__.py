"""What is remembered: the promises (`base`), their two answers (`memory`, `sqlite`), and the choice between them."""

from pathlib import Path

from blacktree.storage.base import Store
from blacktree.storage.memory import MemoryStore
from blacktree.storage.sqlite import SqliteStore


def open_store(directory: str | None, *, minimum_free_bytes: int = 0) -> Store:
    """A store in this state directory, or in memory (None). Nothing is opened before its `run`."""
    if directory is None:
        return MemoryStore()
    return SqliteStore(Path(directory), minimum_free_bytes=minimum_free_bytes)
