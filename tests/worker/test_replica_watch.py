"""What ends a replica's container, where the engine is slow to say so."""

import socket

import trio

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


async def test_who_was_healthy_and_ends_is_never_called_unhealthy() -> None:
    failed: list[str] = []

    def checked(ok: bool, why: str) -> Ended | None:
        failed.append(why)
        return Ended(code="unhealthy", reason=why)

    spec = RunSpec(name="web", health=Health(tcp=TcpCheck(port=80)))
    # Nobody listens there, and nobody else can.
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        container = Container(id="a", labels={}, state="running", ports={80: kept.getsockname()})
        async with trio.open_nursery() as nursery:
            name = ReplicaName(deployment="web", version=1, index=0)
            watch = Watch(name, spec, CleaningUp(nursery), checked, lambda: True)
            end = await watch.run(container)
    assert (end.code, end.oom_killed, failed) == ("oom_killed", True, [])
