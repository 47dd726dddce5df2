"""Which images this worker built or pulled for a replica. Labels cannot tell: what is built FROM ours inherits them."""

import os
from collections.abc import Collection
from pathlib import Path

import structlog

from blacktree.concurrency.threads import in_thread

log = structlog.get_logger()

MOST = 100_000


class Ledger:
    """Image ids in a file of the state directory, one a line; in memory alone without one.

    A crash between a build's end and its line here leaves an image that is never pruned: too careful beats too bold.
    """

    def __init__(self, state_directory: str) -> None:
        self._path = Path(state_directory) / "images" if state_directory else None
        self._ids: dict[str, None] | None = None

    async def add(self, image: str) -> None:
        """This one is ours. Adding it again changes nothing."""
        ids = await self._load()
        if image in ids:
            return
        ids[image] = None
        if len(ids) > MOST:
            del ids[next(iter(ids))]
        try:
            await in_thread(lambda: self._append(image))
        except OSError as error:
            # The image is there: a full disk is no reason to fail its build. It is written with the next that goes.
            log.warning("an image is not on record", image=image, reason=error.strerror)

    async def ids(self) -> Collection[str]:
        """Every image that is ours, the oldest first."""
        return list(await self._load())

    async def forget(self, gone: Collection[str]) -> None:
        """These are no more."""
        ids = await self._load()
        if not any(image in ids for image in gone):
            return
        for image in gone:
            ids.pop(image, None)
        await in_thread(self._write)

    async def _load(self) -> dict[str, None]:
        if self._ids is None:
            self._ids = await in_thread(self._read)
        return self._ids

    def _read(self) -> dict[str, None]:
        if self._path is None:
            return {}
        try:
            return dict.fromkeys(self._path.read_text(encoding="ascii", errors="replace").split())
        except FileNotFoundError:
            return {}

    def _append(self, image: str) -> None:
        if self._path is not None:
            with self._path.open("a", encoding="ascii") as file:
                file.write(f"{image}\n")

    def _write(self) -> None:
        if self._path is None:
            return
        fresh = self._path.with_suffix(".new")
        fresh.write_text("".join(f"{image}\n" for image in self._ids or {}), encoding="ascii")
        os.replace(fresh, self._path)
