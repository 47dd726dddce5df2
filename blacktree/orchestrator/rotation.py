"""Sealing everything with another key. At every moment until the end the old and the new one both open it."""

from collections.abc import Awaitable, Callable, Iterable

import msgspec

from blacktree.cipher import Locked
from blacktree.concurrency.threads import in_thread
from blacktree.orchestrator.keyring import Keyring
from blacktree.orchestrator.sealed import Sealed
from blacktree.storage.base import Store

PINNED = "secrets.key_files"
RETIRED = "secret-key"


class KeyRecords:
    """What the store knows of keys: which files they moved to, and (sealed) those of earlier rotations."""

    def __init__(self, store: Store, keyring: Keyring) -> None:
        self._store = store
        self._keyring = keyring

    async def load(self) -> None:
        """Read the keys anew, and what they open of the retired ones. Raises `StorageFailed`."""
        text = (await self._store.settings(PINNED)).get(PINNED)
        pinned: list[str] = msgspec.json.decode(text, type=list[str]) if text else []
        await in_thread(lambda: self._keyring.read(pinned))
        if pinned and not self._keyring.pinned:
            await self._store.setting(PINNED, None)
        retired = {}
        for name, body in await self._store.documents(RETIRED):
            try:
                retired[name] = self._keyring.values.unseal(body, _about(name))
            except Locked:
                continue
        self._keyring.retire(retired)

    async def rotate(self, new_key_file: str, reseal: Callable[[], Awaitable[int]]) -> tuple[int, str]:
        """The whole of it; `reseal` seals every secret anew and answers how many. Going on after a crash is the same.

        1. the new key is in its file, beside the old one or with its path on record; 2. retired keys, then secrets,
        one by one; 3. the old key leaves the file, or its path the record.
        """
        pinned = await in_thread(lambda: self._keyring.move(new_key_file))
        if pinned:
            await self._store.setting(PINNED, msgspec.json.encode(pinned).decode())
        for name, key in self._keyring.old_seals().items():
            body = self._keyring.values.seal(key, _about(name))
            await self._store.revise(RETIRED, name, lambda before, body=body: body)  # type: ignore[misc]  # bound above
        sealed = await reseal()
        if pinned:
            await self._store.setting(PINNED, msgspec.json.encode(pinned[:1]).decode())
        self._keyring.retire(self._keyring.old_seals())
        return sealed, await in_thread(lambda: self._keyring.settle(pinned))


def resealed(sealed: Iterable[Sealed], keyring: Keyring) -> Iterable[Sealed]:
    """Those that the current key has not sealed, sealed with it. Raises `Locked`."""
    for each in sealed:
        if each.key != keyring.values.current:
            value = keyring.values.unseal(each.body, each.about)
            yield msgspec.structs.replace(each, body=keyring.values.seal(value, each.about))


def _about(name: str) -> bytes:
    return f"retired key {name}".encode()
