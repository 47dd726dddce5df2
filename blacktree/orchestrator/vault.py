"""`Vault`: the farm's secrets, sealed in the store; the key lies elsewhere and values come out only where needed."""

from collections.abc import Callable, Sequence

import msgspec
import structlog
import trio

from blacktree.cipher import Locked
from blacktree.clock import now
from blacktree.concurrency.threads import in_thread
from blacktree.errors import NotFound, TooLarge
from blacktree.orchestrator.keyring import Keyring
from blacktree.orchestrator.rotation import KeyRecords, resealed
from blacktree.orchestrator.sealed import Sealed, about, path_of
from blacktree.orchestrator.secretcontrol import KeyView, Rotated
from blacktree.secret import SecretKind, SecretView, checked_name, checked_scope, checked_value
from blacktree.storage.base import Store
from blacktree.strict import UNREADABLE

log = structlog.get_logger()

DOCUMENTS = "secret"
MOST_SECRETS = 2000
MOST_BYTES = 64 << 20
_PAGE = 100

_SET_ANEW = "set it again: `blacktree secret set`"

Tell = Callable[[str, str, str], None]
"""Notes a farm event: type, text, subject."""


class Vault:
    """Keeps secrets. The store's only writer of them, so what it has in memory (sealed) is what is stored.

    `load` comes first. Without a key everything but `put`, `value`, `seal` and `unseal` works.
    """

    def __init__(self, store: Store, keyring: Keyring, tell: Tell = lambda type, text, subject: None) -> None:
        self._store = store
        self._keyring = keyring
        self._tell = tell
        self._sealed: dict[str, Sealed] = {}
        self._records = KeyRecords(store, keyring)
        self._unsure: set[str] = set()
        self._damaged: set[str] = set()
        # A rotation must not miss what is being put.
        self._changing = trio.Lock()

    async def load(self) -> None:
        """Read keys and secrets; a key that is missing or wrong is a `trouble` and no error. Raises `StorageFailed`."""
        await self._records.load()
        after = ""
        while page := await self._store.documents(DOCUMENTS, after=after, limit=_PAGE):
            for path, body in page:
                try:
                    self._hold(path, _read(path, body))
                except UNREADABLE as error:
                    # `secret set` of the same name mends it; the others do not suffer for it.
                    self._damaged.add(path)
                    log.error("a secret's record is damaged", secret=path, reason=str(error))
            after = page[-1][0]
        if self.trouble:
            log.error("secrets cannot be read", reason=self.trouble)

    # Reading

    @property
    def trouble(self) -> str:
        """What keeps stored secrets from being read, in a sentence; empty if nothing does."""
        closed = sum(1 for each in self._sealed.values() if not self._keyring.values.opens(each.body))
        if closed:
            why = self._keyring.trouble or f"their key is not in {self._keyring.what}"
            return f"{closed} of {len(self._sealed)} secrets cannot be opened: {why}"
        if self._damaged:
            return f"damaged records: {', '.join(sorted(self._damaged))}; set or remove them"
        return self._keyring.trouble

    def key(self) -> KeyView:
        """See `SecretControl.key`."""
        return KeyView(id=self._keyring.values.current, place=self._keyring.what, trouble=self.trouble)

    async def value(
        self, name: str, *, kind: SecretKind, source: str | None = None, repository: str | None = None
    ) -> bytes | None:
        """The value, or None if there is none by this name or its scope does not permit this source and repository.

        Raises `Locked` (the key is missing, wrong, or the body was changed), `StorageFailed`.
        """
        await self._be_sure()
        path = path_of(kind, checked_name(kind, name))
        if path in self._damaged:
            raise Locked(
                f"the record of the {kind} secret `{name}` is damaged", code="secret_damaged", advice=_SET_ANEW
            )
        found = self._sealed.get(path)
        if found is None or not found.scope.permits(source, repository):
            return None
        return self._opened(found)

    def knows(self, name: str, *, kind: SecretKind) -> bool:
        """Whether there is one by this name, for whomever."""
        return path_of(kind, checked_name(kind, name)) in self._sealed

    async def permits(self, name: str, *, kind: SecretKind, source: str | None, repository: str | None) -> bool:
        """See `Vaulted.permits`."""
        await self._be_sure()
        path = path_of(kind, checked_name(kind, name))
        found = self._sealed.get(path)
        # Of a damaged one nothing is known: `value` says so.
        return path in self._damaged or (found is not None and found.scope.permits(source, repository))

    def names(self, kind: SecretKind) -> list[str]:
        """The names of this kind, sorted."""
        return sorted(each.name for each in self._sealed.values() if each.kind is kind)

    def _opened(self, sealed: Sealed) -> bytes:
        try:
            return self._keyring.values.unseal(sealed.body, sealed.about)
        except Locked as error:
            raise Locked(
                f"the {sealed.kind} secret `{sealed.name}` cannot be opened: {self._keyring.trouble or error.message}",
                code=error.code,
                advice="give the farm the key it was sealed with (`blacktree doctor` says where it looks), or set the"
                " secret again",
            ) from None

    async def listed(self) -> list[SecretView]:
        """See `SecretControl.listed`."""
        await self._be_sure()
        return [self._view(each) for _, each in sorted(self._sealed.items())]

    def _view(self, sealed: Sealed) -> SecretView:
        return sealed.view(readable=self._keyring.values.opens(sealed.body))

    # Changing

    async def put(
        self,
        name: str,
        value: bytes,
        *,
        kind: SecretKind,
        sources: Sequence[str] = (),
        repositories: Sequence[str] = (),
        actor: str = "",
    ) -> SecretView:
        """See `SecretControl.put`."""
        name, scope = checked_name(kind, name), checked_scope(sources, repositories)
        value = checked_value(kind, value)
        path = path_of(kind, name)
        async with self._changing:
            await self._be_sure()
            await in_thread(lambda: self._keyring.need(may_make=not self._sealed))
            earlier = self._sealed.get(path)
            self._check_room(path, len(value))
            time = now()
            sealed = Sealed(
                kind=kind,
                name=name,
                scope=scope,
                body=self._keyring.values.seal(value, about(kind, name, scope)),
                created_at=earlier.created_at if earlier else time,
                updated_at=time,
            )
            await self._revise(path, sealed)
        self._tell("secret_changed" if earlier else "secret_added", f"{kind} secret `{name}`{_by(actor)}", name)
        return self._view(sealed)

    def _check_room(self, path: str, size: int) -> None:
        others = [each for each in self._sealed if each != path]
        if len(others) >= MOST_SECRETS or size + sum(len(self._sealed[each].body) for each in others) > MOST_BYTES:
            raise TooLarge(
                f"a farm keeps at most {MOST_SECRETS} secrets and {MOST_BYTES >> 20} MiB of them",
                advice="remove some: `blacktree secret list`, `blacktree secret remove KIND NAME`",
            )

    async def remove(self, name: str, *, kind: SecretKind, actor: str = "") -> None:
        """See `SecretControl.remove`."""
        name = checked_name(kind, name)
        path = path_of(kind, name)
        async with self._changing:
            await self._be_sure()
            if path not in self._sealed and path not in self._damaged:
                raise NotFound(f"there is no {kind} secret `{name}`", advice="see `blacktree secret list`")
            await self._revise(path, None)
        self._tell("secret_removed", f"{kind} secret `{name}`{_by(actor)}", name)

    async def _revise(self, path: str, sealed: Sealed | None) -> None:
        """Commit one. A cancelled caller leaves it unsure which of the two stands: looked up at the next use."""
        body = msgspec.msgpack.encode(sealed) if sealed is not None else None
        self._unsure.add(path)
        await self._store.revise(DOCUMENTS, path, lambda before: body)
        self._hold(path, sealed)

    def _hold(self, path: str, sealed: Sealed | None) -> None:
        if sealed is None:
            self._sealed.pop(path, None)
        else:
            self._sealed[path] = sealed
        self._unsure.discard(path)
        self._damaged.discard(path)

    async def _be_sure(self) -> None:
        for path in list(self._unsure):
            # The reader sees what the writer has committed, not what it is at: a revision of nothing waits for that.
            body = await self._store.revise(DOCUMENTS, path, lambda before: before)
            self._hold(path, _read(path, body) if body is not None else None)

    async def rotate(self, new_key_file: str = "", *, actor: str = "") -> Rotated:
        """See `SecretControl.rotate`."""
        async with self._changing:
            await self._be_sure()
            if any(not self._keyring.values.opens(each.body) for each in self._sealed.values()):
                raise Locked(
                    self.trouble,
                    advice="give the farm the key they were sealed with first, or remove them; nothing was changed",
                )
            if self._damaged:
                raise Locked(self.trouble, code="secret_damaged", advice="nothing was changed")
            for each in self._sealed.values():
                # A damaged one would stop the rotation half-way, each time: better to say so before it begins.
                self._opened(each)
            await in_thread(lambda: self._keyring.need(may_make=not self._sealed))
            sealed, left = await self._records.rotate(new_key_file, self._reseal)
        key = self._keyring.values.current
        self._tell("secrets_key_rotated", f"{sealed} sealed with the key {key}{_by(actor)}", key)
        return Rotated(sealed=sealed, key=key, next=left)

    async def _reseal(self) -> int:
        count = 0
        for each in resealed(list(self._sealed.values()), self._keyring):
            await self._revise(each.path, each)
            count += 1
        return count

    # For other parts

    def seal(self, value: bytes, about: str = "") -> bytes:
        """Seal something that another part keeps for a while; `about` must be the same to open it.

        It can be opened after rotations too. Raises `Locked`.
        """
        self._keyring.need(may_make=not self._sealed)
        return self._keyring.seals.seal(value, about.encode())

    def unseal(self, body: bytes, about: str = "") -> bytes:
        """What `seal` was given. Raises `Locked`."""
        return self._keyring.seals.unseal(body, about.encode())


def _read(path: str, body: bytes) -> Sealed:
    sealed = msgspec.msgpack.decode(body, type=Sealed)
    if sealed.path != path:
        # A whole record under another's name would open with its own seal.
        raise msgspec.ValidationError(f"the record of {sealed.path}")
    return sealed


def _by(actor: str) -> str:
    return f" by {actor}" if actor else ""
