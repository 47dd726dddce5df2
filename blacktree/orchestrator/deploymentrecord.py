"""The documents of deployments: what is on record, held in memory too, and each change of it decided and committed."""

from collections.abc import Callable

import msgspec
import trio

from blacktree.deployment import KIND, Deployment, Version, check_size, decode_deployment, encode_deployment
from blacktree.errors import NotFound, StorageFailed
from blacktree.orchestrator import releases
from blacktree.storage.base import Store

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
        self.known: dict[str, Deployment] = {}
        self.version = 1

    async def load(self) -> None:
        """Read everything. To be called once. Raises `StorageFailed`."""
        after = ""
        while page := await self._store.documents(KIND, after=after):
            self.known |= {name: _decoded(name, body) for name, body in page}
            after = page[-1][0]

    async def change(self, name: str, decide: Decide) -> Deployment | None:
        """Decide and commit one deployment; answers what stands now. Raises what `decide` raises, `StorageFailed`."""

        def revise(body: bytes | None) -> bytes | None:
            before = _decoded(name, body) if body is not None else None
            after = decide(before)
            if after is before:
                return body
            return encode_deployment(after) if after is not None else None

        async with self._writing:
            # Whoever asked may leave in the middle; then the record is looked at again.
            self._unsure.add(name)
            body = await self._store.revise(KIND, name, revise)
            self._unsure.discard(name)
            self._hold(name, body)
        return self.known.get(name)

    def _hold(self, name: str, body: bytes | None) -> None:
        after = _decoded(name, body) if body is not None else None
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
                self._hold(name, await self._store.document(KIND, name))
                self._unsure.discard(name)

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
        if name not in self.known:
            raise NotFound(f"no deployment {name[:80]!r}", advice="`blacktree deployments` lists them")
        return self.known[name]

    async def add(self, version: Version) -> int:
        """Put a further version of `version.run.name` on record; answers its number. Raises `BadRequest`."""
        check_size(version.run)
        name, number = version.run.name, 0

        def decide(found: Deployment | None) -> Deployment:
            nonlocal number
            after = releases.add(found or releases.new(name, version.created_at), version, version.created_at)
            number = after.next_version - 1
            return after

        await self.change(name, decide)
        return number


def _decoded(name: str, body: bytes) -> Deployment:
    try:
        return decode_deployment(body)
    except msgspec.MsgspecError as error:
        # To go on without it would stop its containers.
        raise StorageFailed(
            f"deployment {name} on record cannot be read: {error}",
            code="state_damaged",
            advice="put back a backup of the state directory",
            again=False,
        ) from error
