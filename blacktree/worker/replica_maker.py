"""`Maker`: the containers of one replica, one after the other: each is made with a mark of its own, and what a
successor has replaced is removed."""

import secrets as tokens
from collections.abc import Awaitable, Callable

import trio

from blacktree.concurrency.threads import in_thread
from blacktree.errors import EngineLost, NotFound, StepFailed
from blacktree.providers.base import Login
from blacktree.providers.containers import Container, Mount, registry_host
from blacktree.rpc.replica import ReplicaOrder
from blacktree.worker.replica_labels import RUN, number_of
from blacktree.worker.replica_request import request_of
from blacktree.worker.surroundings import Surroundings

# A pull that takes longer than this is stuck.
PULL_SECONDS = 1800.0
REMOVE_SECONDS = 30.0
CREATE_SECONDS = 10.0


class Maker:
    """`order`: as it stands at the moment; `known` waits until that has its logins and secrets.

    `runs`: the marks of all containers that are, or may be about to be, this replica's. `number`: of the newest one.
    """

    def __init__(
        self,
        around: Surroundings,
        order: Callable[[], ReplicaOrder],
        known: Callable[[], Awaitable[None]],
        adopted: Container | None,
    ) -> None:
        self._around = around
        self._containers = around.containers
        self._order = order
        self._known = known
        self._old: list[str] = []
        self.runs: set[str] = set()
        self.number = 0
        if adopted is not None:
            self.number = number_of(adopted) or 1
            self.runs.add(adopted.labels.get(RUN, ""))

    async def make(self) -> Container:
        """Everything up to a started container. What it replaces is removed once it is there."""
        await self._have_image()
        mark, mounts = await self._mounts()
        made = await self._create(mark, mounts)
        for old in self._old[:-1]:
            await self._remove(old)
        self._old = [made]
        # Whatever bears an older mark is nobody's by now; the sweep finds what an engine made unasked.
        gone, self.runs = self.runs - {mark}, {mark}
        await in_thread(lambda: self._remove_secrets(gone))
        await self._containers.start(made)
        container = await self._containers.inspect(made)
        if container is None:
            raise NotFound(f"container {made[:12]} vanished")
        self._old = []
        return container

    def ended(self, container: str) -> None:
        """This one is to go when the next one is there."""
        self._old.append(container)

    async def clear(self, container: str = "") -> None:
        """Remove this one and all others. Raises `BlacktreeError`; then it is to be called again."""
        for name in [*self._old, *([container] if container else [])]:
            await self._remove(name)
        # What was being made when we were told may be there, too.
        for each in await self._containers.listed():
            if each.labels.get(RUN) in self.runs:
                await self._remove(each.id)

    async def forget(self) -> None:
        """Nothing is left: their secrets go."""
        await in_thread(lambda: self._remove_secrets(self.runs))

    async def _have_image(self) -> None:
        image = self._order().image
        if await self._containers.has(image):
            return
        if not self._order().pull:
            raise StepFailed(
                f"image {image} is not on this worker's engine",
                code="image_missing",
                again=False,
                advice="push the image, so that any worker can pull it",
            )
        await self._known()
        with trio.move_on_after(PULL_SECONDS) as pulling:
            login = self._order().logins.get(registry_host(image))
            await self._containers.pull(image, Login(login.username, login.password) if login else None)
        if pulling.cancelled_caught:
            raise StepFailed(f"pulling {image} took more than {PULL_SECONDS:g} s", code="pull_stuck", again=True)

    async def _mounts(self) -> tuple[str, list[Mount]]:
        """A new mark, and what a container with it is given."""
        run = self._order().run
        mounts = await in_thread(lambda: [self._around.mount(volume) for volume in run.volumes])
        mark = tokens.token_hex(8)
        self.runs.add(mark)
        if run.secrets:
            await self._known()
            given = self._order().secrets
            if missing := sorted(set(run.secrets) - set(given)):
                raise StepFailed(
                    f"the deployment asks for secrets that did not come: {', '.join(missing)}",
                    code="secret_missing",
                    again=True,
                    advice="add them to the secret store, then deploy again",
                )
            values = {name: given[name] for name in run.secrets}
            mounts += await in_thread(lambda: self._around.secrets.write(mark, values))
        return mark, mounts

    async def _create(self, mark: str, mounts: list[Mount]) -> str:
        self.number += 1
        made = ""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CREATE_SECONDS):
            # Not cut short: what was asked for is made, whether we wait for it or not, and must be removed.
            request = request_of(self._order(), mark, self.number, mounts, self._around.farm())
            made = await self._containers.create(request)
            self._old.append(made)
        if self._old[-1:] != [made]:
            raise EngineLost(f"the engine did not make a container in {CREATE_SECONDS:g} s")
        return made

    async def _remove(self, container: str) -> None:
        with trio.move_on_after(REMOVE_SECONDS) as scope:
            await self._containers.remove(container)
        if scope.cancelled_caught:
            raise EngineLost(f"the engine did not remove container {container[:12]} in {REMOVE_SECONDS:g} s")

    def _remove_secrets(self, runs: set[str]) -> None:
        for run in runs:
            if run:
                self._around.secrets.remove(run)
