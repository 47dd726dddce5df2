"""What ends a replica's container, where the engine is slow to say so."""

import socket

import trio

from blacktree.errors import EngineLost
from blacktree.providers.containers import Container
from blacktree.providers.scripted_containers import ScriptedContainers
from blacktree.rpc.replica import ReplicaName
from blacktree.runspec import Health, RunSpec, TcpCheck
from blacktree.worker.replica_machine import Ended
from blacktree.worker.replica_watch import Watch


class CleaningUp(ScriptedContainers):
    """An engine that has closed the ports of a container and is not through with its end."""

    async def wait(self, container: str) -> Container:
        await trio.sleep_forever()
        raise AssertionError

    async def inspect(self, container: str) -> Container:
        await trio.lowlevel.checkpoint()
        return Container(id=container, labels={}, state="ended", exit_code=137, oom_killed=True)


class Away(ScriptedContainers):
    """An engine that is restarted: with it goes the container. `back` it is when a check has failed meanwhile."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__(nursery)
        self.asked = 0

    async def wait(self, container: str) -> Container:
        return await self._answer(container)

    async def inspect(self, container: str) -> Container:
        self.asked += 1
        return await self._answer(container)

    async def _answer(self, container: str) -> Container:
        await trio.lowlevel.checkpoint()
        if self.asked < 5:
            raise EngineLost("no engine answers")
        return Container(id=container, labels={}, state="ended", exit_code=255)


async def watched(kind: type[ScriptedContainers]) -> tuple[Ended, list[str], bool]:
    """What a container came to on whose port nobody listens, which checks it failed, and was the engine away?"""
    failed: list[str] = []
    away: list[bool] = []

    def checked(ok: bool, why: str) -> Ended | None:
        failed.append(why)
        return Ended(code="unhealthy", reason=why)

    spec = RunSpec(name="web", health=Health(tcp=TcpCheck(port=80), interval_seconds=0.1))
    # Nobody listens there, and nobody else can.
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        container = Container(id="a", labels={}, state="running", ports={80: kept.getsockname()})
        async with trio.open_nursery() as nursery:
            name = ReplicaName(deployment="web", version=1, index=0)
            watch = Watch(name, spec, kind(nursery), checked, lambda: True, lambda: away.append(True))
            return await watch.run(container), failed, bool(away)


async def test_who_was_healthy_and_ends_is_never_called_unhealthy() -> None:
    end, failed, away = await watched(CleaningUp)
    assert (end.code, end.oom_killed, failed, away) == ("oom_killed", True, [], False)


async def test_a_check_that_fails_while_the_engine_is_away_says_nothing() -> None:
    end, failed, away = await watched(Away)
    assert (end.code, end.free, failed, away) == ("engine_lost", True, [], True)
