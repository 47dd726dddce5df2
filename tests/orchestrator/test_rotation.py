"""Rotating the key: crashed at every step, nothing is lost and the next try ends it."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from blacktree.cipher import Key, Locked, new_key
from blacktree.errors import BadRequest
from blacktree.keyfile import KeyPlace, read_keys, write_keys
from blacktree.orchestrator import keyring as keyring_module
from blacktree.orchestrator.keyring import Keyring
from blacktree.orchestrator.sealed import Sealed
from blacktree.orchestrator.vault import DOCUMENTS, Vault
from blacktree.secret import SecretKind
from blacktree.storage.memory import MemoryStore
from tests.orchestrator.test_vault import open_memory

BUILD = SecretKind.BUILD
VALUES = {f"s{number}": f"value {number}".encode() for number in range(3)}


class Crash(Exception):
    """The process would have ended here."""


class Crashes:
    """Lets so many writes (to the store or a key file) happen, and no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: MemoryStore) -> None:
        self.left = 10**9
        for name in ("revise", "setting"):
            monkeypatch.setattr(store, name, self._counted(getattr(store, name)))
        write = keyring_module.write_keys

        def writing(path: Path, keys: list[Key], *, fresh: bool = False) -> None:
            self._count()
            write(path, keys, fresh=fresh)

        monkeypatch.setattr(keyring_module, "write_keys", writing)

    def _count(self) -> None:
        if self.left == 0:
            raise Crash
        self.left -= 1

    def _counted(self, call: Callable[..., object]) -> Callable[..., object]:
        async def counted(*arguments: object) -> object:
            self._count()
            return await call(*arguments)

        return counted


async def start(store: MemoryStore, place: KeyPlace) -> Vault:
    """As after a restart of the process."""
    vault = Vault(store, Keyring(place))
    await vault.load()
    return vault


async def fill(vault: Vault) -> bytes:
    for name, value in VALUES.items():
        await vault.put(name, value, kind=BUILD, repositories=["example.test/**"])
    return vault.seal(b"a clone token", "job")


async def check(vault: Vault, sealed: bytes) -> None:
    for name, value in VALUES.items():
        assert await vault.value(name, kind=BUILD, repository="https://example.test/a/b") == value
    assert vault.unseal(sealed, "job") == b"a clone token"
    assert vault.trouble == ""


async def test_in_its_own_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    write_keys(file, [old := new_key()])
    place = KeyPlace(what="a file", path=file, writes=True)
    async with open_memory() as store:
        vault = await start(store, place)
        sealed = await fill(vault)
        done = await vault.rotate()
        assert (done.sealed, done.next) == (3, "")
        (key,) = read_keys(file)
        assert key.id == done.key != old.id
        assert file.stat().st_mode & 0o777 == 0o600
        await check(vault, sealed)
        await check(await start(store, place), sealed)
        for _, body in await store.documents(DOCUMENTS):
            assert bytes.fromhex(old.id) not in body
        assert (await vault.rotate()).key != key.id
        await check(await start(store, place), sealed)
        with pytest.raises(Locked):
            await (await start(store, KeyPlace(fixed=(old,)))).value(
                "s0", kind=BUILD, repository="https://example.test/a/b"
            )


@pytest.mark.parametrize("named", [False, True], ids=["own file", "named file"])
async def test_crashed_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
    steps = 0
    while True:
        directory = tmp_path / str(steps)
        directory.mkdir()
        file, further = directory / "key", directory / "further"
        write_keys(file, [new_key()])
        write_keys(further, [wanted := new_key()])
        place = KeyPlace(what="a file", path=file, writes=True)
        new_file = str(further) if named else ""
        async with open_memory() as store:
            vault = await start(store, place)
            sealed = await fill(vault)
            with monkeypatch.context() as patch:
                crashes = Crashes(patch, store)
                crashes.left = steps
                crashed = False
                try:
                    await vault.rotate(new_file)
                except Crash:
                    crashed = True
                # The process that failed can go on too, and keeps what it is given meanwhile.
                crashes.left = 10**9
                await check(vault, sealed)
                again = vault.seal(b"a clone token", "job")
            await check(await start(store, place), sealed)
            after = await start(store, place)
            await after.put("late", b"late", kind=BUILD)
            done = await after.rotate(new_file)
            if named:
                assert done.key == wanted.id
                assert str(further) in done.next
            await check(after, sealed)
            last = await start(store, place)
            await check(last, sealed)
            await check(last, again)
            assert await last.value("late", kind=BUILD) == b"late"
            assert len(read_keys(further if named else file)) == 1
            assert {each.key for each in last._sealed.values()} == {done.key}
        if not crashed:
            break
        steps += 1
    assert steps > 5


async def test_a_key_that_is_not_in_a_file_moves_to_one(tmp_path: Path) -> None:
    place = KeyPlace(what="the variable", fixed=(new_key(),))
    async with open_memory() as store:
        vault = await start(store, place)
        sealed = await fill(vault)
        with pytest.raises(BadRequest) as refused:
            await vault.rotate()
        assert "--new-key-file" in refused.value.advice
        first, second = tmp_path / "first", tmp_path / "second"
        for path in (first, second):
            write_keys(path, [new_key()])
            done = await vault.rotate(str(path))
            assert done.key == read_keys(path)[0].id
            assert "secrets_key_file" in done.next
            vault = await start(store, place)
            await check(vault, sealed)
            assert vault.key().place == f"the file {path}"
        # Without a file it goes on in the one that it was given.
        done = await vault.rotate()
        assert [key.id for key in read_keys(second)] == [done.key]
        # The operator names the new file: it is pinned no more.
        configured = KeyPlace(what="configured", path=second, writes=True)
        await check(await start(store, configured), sealed)
        assert await store.settings("secrets.") == {}


async def test_the_old_key_in_the_variable_behind_the_new_one() -> None:
    old, key = new_key(), new_key()
    async with open_memory() as store:
        sealed = await fill(await start(store, KeyPlace(fixed=(old,))))
        vault = await start(store, KeyPlace(what="the variable", fixed=(key, old)))
        await check(vault, sealed)
        done = await vault.rotate()
        assert (done.sealed, done.key) == (3, key.id)
        assert "take the old key out" in done.next
        await check(await start(store, KeyPlace(fixed=(key,))), sealed)


async def test_a_credential_with_the_new_key_before_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "secrets-key"
    write_keys(file, [old := new_key()])
    place = KeyPlace(what="the credential", path=file, credential=True)
    async with open_memory() as store:
        sealed = await fill(await start(store, place))
        write_keys(file, [key := new_key(), old])
        vault = await start(store, place)
        done = await vault.rotate()
        assert (done.sealed, done.key) == (3, key.id)
        assert "take the old key out" in done.next
        assert read_keys(file) == [key, old]
        write_keys(file, [key])
        await check(await start(store, place), sealed)


async def test_refusals_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "key"
    write_keys(file, [new_key()])
    open_to_all, no_key = tmp_path / "open", tmp_path / "none"
    write_keys(open_to_all, [new_key()])
    open_to_all.chmod(0o644)
    no_key.write_text("hello\n")
    no_key.chmod(0o600)
    state = tmp_path / "state"
    write_keys(state / "key", [new_key()])
    async with open_memory() as store:
        place = KeyPlace(what="a file", path=file, writes=True, apart=state)
        vault = await start(store, place)
        sealed = await fill(vault)
        before = file.read_bytes(), await store.documents(DOCUMENTS)
        for path in ("relative", str(tmp_path / "absent"), str(open_to_all), str(no_key), str(state / "key")):
            with pytest.raises(BadRequest):
                await vault.rotate(path)
        stranger = await start(store, KeyPlace(fixed=(new_key(), new_key())))
        with pytest.raises(Locked):
            await stranger.rotate()
        assert (file.read_bytes(), await store.documents(DOCUMENTS)) == before
        await check(vault, sealed)


async def test_a_damaged_secret_is_named_before_anything_is_changed(tmp_path: Path) -> None:
    file = tmp_path / "key"
    write_keys(file, [new_key()])
    place = KeyPlace(what="a file", path=file, writes=True)
    async with open_memory() as store:
        await fill(await start(store, place))
        whole = await store.document(DOCUMENTS, "build/s1")
        other = await store.document(DOCUMENTS, "build/s0")
        assert whole is not None
        before = file.read_bytes()
        # Another's whole record, and one with a changed byte in its seal.
        body = msgspec.msgpack.decode(whole, type=Sealed).body
        for damaged in (other, whole.replace(body[-8:], bytes(8))):
            await store.revise(DOCUMENTS, "build/s1", lambda before, damaged=damaged: damaged)
            vault = await start(store, place)
            with pytest.raises(Locked) as refused:
                await vault.rotate()
            assert "s1" in str(refused.value)
            assert file.read_bytes() == before
            with pytest.raises(Locked):
                await vault.value("s1", kind=BUILD, repository="https://example.test/a/b")
            await vault.put("s1", b"anew", kind=BUILD)
            assert await vault.value("s1", kind=BUILD) == b"anew"
        assert (await vault.rotate()).sealed == 3


async def test_a_pinned_file_that_is_gone(tmp_path: Path) -> None:
    place = KeyPlace(what="the variable", fixed=(new_key(),))
    moved = tmp_path / "moved"
    write_keys(moved, [new_key()])
    async with open_memory() as store:
        vault = await start(store, place)
        sealed = await fill(vault)
        await vault.rotate(str(moved))
        away = moved.rename(tmp_path / "away")
        without = await start(store, place)
        assert str(moved) in without.trouble
        with pytest.raises(Locked) as refused:
            await without.put("more", b"more", kind=BUILD)
        assert str(moved) in str(refused.value)
        away.rename(moved)
        await check(await start(store, place), sealed)
