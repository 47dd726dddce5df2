"""Watches one container of a replica from its start to its end: does it run, and does it pass its check?"""

from collections.abc import Callable

import msgspec
import structlog
import trio

from blacktree.errors import BlacktreeError, EngineLost, NotFound
from blacktree.providers.containers import Container, Containers
from blacktree.rpc.replica import ReplicaName
from blacktree.runspec import RunSpec
from blacktree.worker import replica_machine as machine
from blacktree.worker.probe import Unasked, probe
from blacktree.worker.replica_machine import RUNNING_SECONDS, Ended

log = structlog.get_logger()

START_PROBE_SECONDS = 0.25
ASK_AGAIN_SECONDS = 0.5


class Watch:
    """`checked` takes whether a check was passed, and why not; it answers why the container must go, if it must.
    `was_healthy`: whether this container ever was. `engine_away`: its check fails, and nobody can say whose fault that
    is."""

    def __init__(
        self,
        name: ReplicaName,
        spec: RunSpec,
        containers: Containers,
        checked: Callable[[bool, str], Ended | None],
        was_healthy: Callable[[], bool],
        engine_away: Callable[[], None],
    ) -> None:
        self._name = name
        self._spec = spec
        self._containers = containers
        self._checked = checked
        self._was_healthy = was_healthy
        self._engine_away = engine_away
        # The engine went away, and the container is not known to have lived through that.
        self._lost = False

    async def run(self, container: Container) -> Ended:
        """Return why it ended, or has to: then it is ended."""
        found: list[Ended] = []
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                found.append(await self._wait(container))
                nursery.cancel_scope.cancel()

            async def check() -> None:
                found.append(await self._check(container))
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait)
            nursery.start_soon(check)
        end = found[0]
        if end.code == "unhealthy":
            return await self._put_down(container, end)
        return end

    async def _put_down(self, container: Container, end: Ended) -> Ended:
        """It fails its checks: end it. If it has ended by itself meanwhile, that is the better reason."""
        try:
            ended = await self._containers.inspect(container.id)
            if ended is not None and ended.state == "ended":
                return machine.exit_end(ended.exit_code, ended.oom_killed, ended.error, self._spec.memory_bytes)
            await self._containers.stop(container.id, self._spec.strategy.stop_seconds)
            ended = await self._containers.inspect(container.id)
        except BlacktreeError as error:
            log.warning("an unhealthy replica was not stopped", name=repr(self._name), reason=str(error))
            return end
        if ended is None:
            return end
        return msgspec.structs.replace(end, exit_code=ended.exit_code, oom_killed=ended.oom_killed)

    async def _wait(self, container: Container) -> Ended:
        while True:
            try:
                ended = await self._containers.wait(container.id)
            except EngineLost:
                self._lost = True
                self._lost = not await self._runs_on(container)
                continue
            except NotFound:
                return Ended(code="removed", reason="somebody removed its container")
            except BlacktreeError as error:
                log.warning("a replica cannot be watched", name=repr(self._name), reason=str(error))
                await trio.sleep(ASK_AGAIN_SECONDS)
                continue
            return self._end_of(ended)

    def _end_of(self, ended: Container) -> Ended:
        end = machine.exit_end(ended.exit_code, ended.oom_killed, ended.error, self._spec.memory_bytes)
        if not self._lost:
            return end
        reason = f"the engine was restarted ({end.reason})"
        return msgspec.structs.replace(end, code="engine_lost", reason=reason, free=True)

    async def _runs_on(self, container: Container) -> bool:
        """The engine was away: wait until it answers, and say whether the container has lived through that."""
        while True:
            await trio.sleep(ASK_AGAIN_SECONDS)
            try:
                found = await self._containers.inspect(container.id)
            except BlacktreeError:
                continue
            return found is not None and found.state == "running"

    async def _check(self, container: Container) -> Ended:
        health = self._spec.health
        if health.http is None and health.tcp is None and health.command is None:
            await trio.sleep(RUNNING_SECONDS)
            self._checked(True, "")
            await trio.sleep_forever()
        while True:
            try:
                why = await probe(health, container, self._containers)
                if why and (ended := await self._ended(container)) is not None:
                    return ended
            except Unasked:
                why = None
            if why is not None and (end := self._checked(not why, why)) is not None:
                return end
            healthy = self._was_healthy()
            await trio.sleep(health.interval_seconds if healthy else min(health.interval_seconds, START_PROBE_SECONDS))

    async def _ended(self, container: Container) -> Ended | None:
        """How it ended, if that is why it fails its check: the engine tells of an end only once it has cleaned up.

        Raises `Unasked` while the engine is away: the published ports go with it, whoever listens behind them."""
        with trio.move_on_after(self._spec.health.timeout_seconds):
            try:
                found = await self._containers.inspect(container.id)
            except EngineLost as error:
                self._lost = True
                self._engine_away()
                raise Unasked(str(error)) from None
            except BlacktreeError:
                return None
            if found is not None and found.state == "ended":
                return self._end_of(found)
            self._lost = False
        return None
