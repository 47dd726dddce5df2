"""The vault: sealed at rest, scoped, listed without values, and clear about a key that is missing or wrong."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio

from blacktree.cipher import Key, Locked, new_key
from blacktree.errors import BadRequest, NotFound, TooLarge
from blacktree.keyfile import KeyPlace
from blacktree.orchestrator.keyring import Keyring
from blacktree.orchestrator.sealed import Sealed
from blacktree.orchestrator.vault import DOCUMENTS, Vault
from blacktree.secret import SecretKind
from blacktree.storage.base import Store
from blacktree.storage.memory import MemoryStore

BUILD = SecretKind.BUILD


@asynccontextmanager
async def open_memory() -> AsyncIterator[MemoryStore]:
    store = MemoryStore()
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


async def open_vault(store: Store, *keys: Key) -> Vault:
    vault = Vault(store, Keyring(KeyPlace(what="a test", fixed=keys)))
    await vault.load()
    return vault


async def test_put_value_list_remove() -> None:
    async with open_memory() as store:
        vault = await open_vault(store, new_key())
        assert await vault.value("token", kind=BUILD) is None
        view = await vault.put("token", b"s3cret-value", kind=BUILD)
        assert (view.kind, view.name, view.readable) == (BUILD, "token", True)
        assert await vault.value("token", kind=BUILD) == b"s3cret-value"
        assert await vault.value("token", kind=SecretKind.RUN) is None
        await vault.put("token", b"another", kind=BUILD)
        assert await vault.value("token", kind=BUILD) == b"another"
        listed = await vault.listed()
        assert [each.name for each in listed] == ["token"]
        assert listed[0].created_at == view.created_at < listed[0].updated_at
        assert b"another" not in msgspec.json.encode(listed)
        for _, body in await store.documents(DOCUMENTS):
            assert b"another" not in body
        await vault.remove("token", kind=BUILD)
        assert await vault.value("token", kind=BUILD) is None
        with pytest.raises(NotFound):
            await vault.remove("token", kind=BUILD)


async def test_it_is_there_after_a_restart_and_only_with_the_same_key() -> None:
    key = new_key()
    async with open_memory() as store:
        before = await open_vault(store, key)
        await before.put("token", b"value", kind=BUILD)
        sealed = before.seal(b"for a while", "job 7")

        after = await open_vault(store, key)
        assert after.trouble == ""
        assert await after.value("token", kind=BUILD) == b"value"
        assert after.unseal(sealed, "job 7") == b"for a while"
        with pytest.raises(Locked) as moved:
            after.unseal(sealed, "job 8")
        assert moved.value.code == "secret_damaged"

        wrong = await open_vault(store, new_key())
        assert "1 of 1 secrets cannot be opened" in wrong.trouble
        with pytest.raises(Locked) as locked:
            await wrong.value("token", kind=BUILD)
        assert locked.value.advice
        assert [each.readable for each in await wrong.listed()] == [False]

        again = await open_vault(store, key)
        assert await again.value("token", kind=BUILD) == b"value"


async def test_without_a_key_only_values_are_out_of_reach() -> None:
    async with open_memory() as store:
        vault = await open_vault(store)
        assert vault.trouble == ""
        assert await vault.listed() == []
        with pytest.raises(Locked) as refused:
            await vault.put("token", b"value", kind=BUILD)
        assert refused.value.code == "no_secrets_key"
        assert "secrets_key_file" in refused.value.advice
        with pytest.raises(Locked):
            vault.seal(b"value")


async def test_bodies_cannot_be_swapped_or_given_another_scope() -> None:
    async with open_memory() as store:
        key = new_key()
        vault = await open_vault(store, key)
        await vault.put("mine", b"mine", kind=BUILD)
        await vault.put("yours", b"yours", kind=BUILD, sources=["app"])
        await vault.put("mine", b"mine to run", kind=SecretKind.RUN)
        documents = {path: msgspec.msgpack.decode(body, type=Sealed) for path, body in await store.documents(DOCUMENTS)}
        mine, yours = documents["build/mine"], documents["build/yours"]
        for path, forged in (
            ("build/mine", msgspec.structs.replace(mine, body=yours.body)),
            ("build/mine", msgspec.structs.replace(mine, body=documents["run/mine"].body)),
            ("build/yours", msgspec.structs.replace(yours, scope=mine.scope)),
            ("build/mine", msgspec.structs.replace(mine, body=mine.body[:-1] + bytes([mine.body[-1] ^ 1]))),
        ):
            changed = msgspec.msgpack.encode(forged)
            await store.revise(DOCUMENTS, path, lambda before, changed=changed: changed)
            with pytest.raises(Locked) as damaged:
                await (await open_vault(store, key)).value(path.partition("/")[2], kind=BUILD)
            assert damaged.value.code == "secret_damaged"
            whole = msgspec.msgpack.encode(documents[path])
            await store.revise(DOCUMENTS, path, lambda before, whole=whole: whole)


async def test_scopes() -> None:
    async with open_memory() as store:
        vault = await open_vault(store, new_key())
        await vault.put("token", b"v", kind=BUILD, sources=["app"], repositories=["example.test/team/*"])
        good, other = "https://example.test/team/app.git", "https://example.test/others/app.git"
        assert await vault.value("token", kind=BUILD, source="app", repository=good) == b"v"
        assert await vault.value("token", kind=BUILD, source="app", repository=other) is None
        assert await vault.value("token", kind=BUILD, source="web", repository=good) is None
        assert await vault.value("token", kind=BUILD, repository=good) is None
        assert await vault.value("token", kind=BUILD, source="app") is None


@pytest.mark.parametrize(
    ("kind", "name", "value", "error", "path"),
    [
        (BUILD, "", b"v", BadRequest, "name"),
        (BUILD, "..", b"v", BadRequest, "name"),
        (BUILD, "a/b", b"v", BadRequest, "name"),
        (BUILD, "n" * 257, b"v", BadRequest, "name"),
        (BUILD, "n\n", b"v", BadRequest, "name"),
        (BUILD, "n", b"", BadRequest, "value"),
        (BUILD, "n", b"x" * (500 * 1024 + 1), TooLarge, "value"),
        (SecretKind.REGISTRY, "host/path", b"{}", BadRequest, "name"),
        (SecretKind.REGISTRY, "host", b"user:password", BadRequest, "value"),
        (SecretKind.REGISTRY, "host", b'{"username":"a:b","password":"c"}', BadRequest, "value"),
        (SecretKind.REGISTRY, "host", b'{"username":"a","password":""}', BadRequest, "value"),
        (SecretKind.REGISTRY, "host", b'{"username":"a","password":"b","more":1}', BadRequest, "value"),
    ],
)
async def test_what_is_refused(kind: SecretKind, name: str, value: bytes, error: type[BadRequest], path: str) -> None:
    async with open_memory() as store:
        vault = await open_vault(store, new_key())
        with pytest.raises(error) as refused:
            await vault.put(name, value, kind=kind)
        assert refused.value.path == path
        assert value[:20].decode() not in str(refused.value) or len(value) < 2
        assert await vault.listed() == []


async def test_the_largest_value() -> None:
    async with open_memory() as store:
        vault = await open_vault(store, new_key())
        value = bytes(range(256)) * 2000
        await vault.put("large", value, kind=BUILD)
        assert await vault.value("large", kind=BUILD) == value


async def test_a_cancelled_put_leaves_what_is_stored() -> None:
    async with open_memory() as store:
        key = new_key()
        vault = await open_vault(store, key)
        await vault.put("token", b"first", kind=BUILD)
        for number in range(20):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(lambda: vault.put("token", f"value {number}".encode(), kind=BUILD))  # noqa: B023  # ended within the loop
                    for _ in range(number):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            stored = await (await open_vault(store, key)).value("token", kind=BUILD)
            assert await vault.value("token", kind=BUILD) == stored
