"""The documents of deployments: what is on record, held in memory too, and each change of it decided and committed."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import msgspec
import structlog
import trio

from blacktree.clock import now
from blacktree.deployment import KIND, Deployment, Version, check_size, decode_deployment, encode_deployment
from blacktree.errors import NotFound, StorageFailed
from blacktree.orchestrator import releases
from blacktree.storage.base import Store
from blacktree.strict import UNREADABLE

log = structlog.get_logger()

DELETE_SECONDS = 10.0
DAMAGED = "state_damaged"
_GENERATION = "replica_first_generation"

Decide = Callable[[Deployment | None], Deployment | None]
"""Pure and quick, in the writer's thread: the deployment on record → the next one; the very same: nothing to do."""


class DeploymentRecord:
    """Documents of kind `deployment` are written here alone. `known`: all of them. `stir`: called after each change."""

    def __init__(self, store: Store, stir: Callable[[], None]) -> None:
        self._store = store
        self._stir = stir
        self._unsure: set[str] = set()
        self._news = trio.Event()
        self._writing = trio.Lock()
        self._first_generation = 0
        self.known: dict[str, Deployment] = {}
        self.damaged: dict[str, StorageFailed] = {}
        """Those that cannot be read, and why: what they run is not known."""
        self.version = 1

    async def load(self) -> list[str]:
        """Read everything. To be called once; answers the names of those whose deletion was cut short. Raises
        `StorageFailed`."""
        after = ""
        self._first_generation = int((await self._store.settings(_GENERATION)).get(_GENERATION, "0"))
        while page := await self._store.documents(KIND, after=after):
            for name, body in page:
                try:
                    self.known[name] = _decoded(name, body)
                except StorageFailed as error:
                    log.error("a deployment cannot be read", deployment=name, reason=str(error))
                    self.damaged[name] = error
            after = page[-1][0]
        deleted = [name for name, each in self.known.items() if each.deleted]
        for name in deleted:
            del self.known[name]
        return deleted

    async def delete(
        self, name: str, check: Callable[[Deployment], None], clear: Callable[[], Awaitable[None]]
    ) -> None:
        """Forget one for good. `check` may refuse it; `clear` removes what else is kept of it.

        From the first commit on it is gone for whoever asks; what is left then is done at the next start, if it has to
        be. Raises what `check` raises, `NotFound`, `StorageFailed`.
        """

        def mark(body: bytes | None) -> bytes | None:
            before = _decoded(name, body) if body is not None else None
            if before is None or before.deleted:
                raise _unknown(name)
            check(before)
            return encode_deployment(msgspec.structs.replace(before, deleted=True))

        async with self._writing:
            # Above any that was given so far: seconds since 1970 are more than there ever were containers.
            first = max(self._first_generation + 1, int(now().timestamp()))
            await self._store.setting(_GENERATION, str(first))
            self._first_generation = first
            self._unsure.add(name)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + DELETE_SECONDS):
                self._hold(name, await self._store.revise(KIND, name, mark))
                self._unsure.discard(name)
                await self.finish_deletion(name, clear)

    async def give_up(self, name: str, clear: Callable[[], Awaitable[None]]) -> None:
        """Forget one that cannot be read. Raises `StorageFailed`."""
        async with self._writing:
            await clear()
            await self._store.revise(KIND, name, lambda body: None)
            self.damaged.pop(name, None)
        self.touch()

    async def finish_deletion(self, name: str, clear: Callable[[], Awaitable[None]]) -> None:
        """What is left to do of one that is marked as deleted. Raises `StorageFailed`."""
        await clear()
        await self._store.revise(KIND, name, partial(_without_deleted, name))

    async def change(self, name: str, decide: Decide) -> Deployment | None:
        """Decide and commit one deployment; answers what stands now. Raises what `decide` raises, `StorageFailed`."""

        def revise(body: bytes | None) -> bytes | None:
            before = _decoded(name, body) if body is not None else None
            if before is not None and before.deleted:
                before = None
            after = decide(before)
            if after is before:
                return body
            return encode_deployment(after) if after is not None else None

        async with self._writing:
            # Whoever asked may leave in the middle; then the record is looked at again.
            self._unsure.add(name)
            with self._reading(name):
                body = await self._store.revise(KIND, name, revise)
                self._unsure.discard(name)
                self._hold(name, body)
        return self.known.get(name)

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """One that turns out to be damaged is put aside, so that the others go on."""
        try:
            yield
        except StorageFailed as error:
            if error.code == DAMAGED:
                log.error("a deployment cannot be read", deployment=name, reason=str(error))
                self.known.pop(name, None)
                self._unsure.discard(name)
                self.damaged[name] = error
                self.touch()
            raise

    def _hold(self, name: str, body: bytes | None) -> None:
        after = _decoded(name, body) if body is not None else None
        if after is not None and after.deleted:
            after = None
        if after != self.known.get(name):
            if after is not None:
                self.known[name] = after
            else:
                self.known.pop(name, None)
            self.touch()

    async def be_sure(self) -> None:
        """Look again at those whose last change may or may not have been stored. Raises `StorageFailed`."""
        for name in list(self._unsure):
            async with self._writing:
                try:
                    with self._reading(name):
                        self._hold(name, await self._store.document(KIND, name))
                        self._unsure.discard(name)
                except StorageFailed as error:
                    if error.code != DAMAGED:
                        raise

    def touch(self) -> None:
        """Something changed: look at everything again, and tell who watches."""
        self.version += 1
        self._stir()
        news, self._news = self._news, trio.Event()
        news.set()

    async def wait_changed(self, since: int) -> int:
        """Until the version is above `since`; answers it."""
        while self.version <= since:
            await self._news.wait()
        return self.version

    async def all(self) -> list[Deployment]:
        """Every deployment, by name."""
        await self.be_sure()
        return [each for _, each in sorted(self.known.items())]

    async def get(self, name: str) -> Deployment:
        """One of them. Raises `NotFound`."""
        await self.be_sure()
        if name in self.damaged:
            raise self.damaged[name]
        if name not in self.known:
            raise _unknown(name)
        return self.known[name]

    async def add(self, version: Version) -> tuple[int, bool]:
        """Put a further version of `version.run.name` on record; answers its number, and whether it is new.

        Raises `BadRequest`, `Conflict` (its key stands for another).
        """
        check_size(version.run)
        name, number, new = version.run.name, 0, True

        def decide(found: Deployment | None) -> Deployment:
            nonlocal number, new
            earlier = releases.known(found, version) if found is not None else None
            if found is not None and earlier is not None:
                number, new = earlier.number, False
                return found
            start = found or releases.new(name, version.created_at, self._first_generation)
            after = releases.add(start, version, version.created_at)
            number, new = after.next_version - 1, True
            return after

        await self.change(name, decide)
        return number, new


def _without_deleted(name: str, body: bytes | None) -> bytes | None:
    return None if body is None or _decoded(name, body).deleted else body


def _unknown(name: str) -> NotFound:
    return NotFound(f"no deployment {name[:80]!r}", advice="`blacktree deployments` lists them")


def _decoded(name: str, body: bytes) -> Deployment:
    try:
        return decode_deployment(body)
    except UNREADABLE as error:
        # To go on without it would stop its containers.
        raise StorageFailed(
            f"deployment {name} on record cannot be read: {error}",
            code=DAMAGED,
            advice=f"put back a backup of the state directory, or `blacktree deployments delete {name}`: that ends its"
            " containers",
            again=False,
        ) from error
