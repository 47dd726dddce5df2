"""What a worker asks of its engine for one container of a replica."""

from blacktree.providers.containers import ContainerRequest, Mount
from blacktree.rpc.replica import ReplicaOrder
from blacktree.worker.probe import check_ports
from blacktree.worker.replica_labels import FARM, GENERATION, NUMBER, REPLICA, RUN


def request_of(order: ReplicaOrder, mark: str, number: int, mounts: list[Mount], farm: str) -> ContainerRequest:
    """The `number`-th container of this order's generation. `mark` is its own alone. Pure."""
    name, run = order.name, order.run
    return ContainerRequest(
        name=f"blacktree-{name.deployment}-{name.version}-{name.index}-{mark[:8]}",
        image=order.image,
        labels={
            REPLICA: repr(name),
            GENERATION: str(order.generation),
            RUN: mark,
            NUMBER: str(number),
            FARM: farm,
        },
        command=run.command,
        env=run.env,
        mounts=mounts,
        ports=sorted({port.container for port in run.ports} | check_ports(run.health)),
        memory_bytes=run.memory_bytes,
        cpus=run.cpus,
        pids=run.pids,
    )
