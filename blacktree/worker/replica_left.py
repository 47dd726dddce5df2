"""What lies on the engine: what a predecessor of this worker left, and what bears its label and is nobody's."""

from collections.abc import Callable

import structlog
import trio

from blacktree.concurrency.every import every
from blacktree.concurrency.threads import in_thread
from blacktree.errors import BlacktreeError
from blacktree.providers.containers import Container, Containers
from blacktree.worker.fronts import Key
from blacktree.worker.replica_labels import RUN, name_of, number_of
from blacktree.worker.replica_secrets import SecretFiles

log = structlog.get_logger()

SWEEP_SECONDS = 30.0
ADOPT_AGAIN_SECONDS = 1.0
# For containers that nobody ordered: they are asked to end first, as all others.
STRANGER_STOP_SECONDS = 10.0


async def find_left(containers: Containers) -> tuple[list[Container], dict[Key, Container]]:
    """What a predecessor left: all of it, and by their labels those that can be adopted. Waits for an engine that is
    away."""
    told = ""
    while True:
        try:
            found = await containers.listed()
            break
        except BlacktreeError as error:
            if str(error) != told:
                told = str(error)
                log.warning("replicas cannot be looked for", reason=told)
            await trio.sleep(ADOPT_AGAIN_SECONDS)
    adoptable: dict[Key, Container] = {}
    # Of two of one replica the one that runs counts; the sweep removes the other.
    for container in sorted(found, key=lambda each: each.state == "running"):
        named = name_of(container)
        if named is not None and number_of(container) is None:
            # Ours never look so: the sweep removes it.
            log.warning("replica not adopted: its label is damaged", container=container.id[:12])
        elif named is not None and container.state != "created":
            try:
                whole = await containers.inspect(container.id)
            except BlacktreeError:
                whole = None
            if whole is not None:
                adoptable[named] = whole
    return found, adoptable


class ReplicaSweep:
    """Removes containers of ours that belong to nobody. `marks`: those that are somebody's; None: not known yet."""

    def __init__(self, containers: Containers, secrets: SecretFiles, marks: Callable[[], set[str] | None]) -> None:
        self._containers = containers
        self._secrets = secrets
        self._marks = marks

    async def run(self) -> None:
        """Look every `SWEEP_SECONDS` until cancelled."""
        async for _ in every(SWEEP_SECONDS):
            if self._marks() is None:
                continue
            try:
                for container in await self._containers.listed():
                    held = self._marks()
                    mark = container.labels.get(RUN, "")
                    if held is None or mark in held:
                        continue
                    await self._remove(container, mark)
            except BlacktreeError as error:
                log.warning("stray replicas not removed", reason=str(error))

    async def _remove(self, container: Container, mark: str) -> None:
        log.info("stray replica removed", container=container.id[:12], replica=name_of(container))
        if container.state == "running":
            await self._containers.stop(container.id, STRANGER_STOP_SECONDS)
        await self._containers.remove(container.id)
        if mark:
            await in_thread(lambda: self._secrets.remove(mark))
