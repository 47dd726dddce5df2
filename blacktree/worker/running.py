"""`Running`: the part of a worker that keeps replicas, put together, where its provider keeps containers."""

import os

import trio

from blacktree.config import WorkerConfig
from blacktree.providers.base import Provider
from blacktree.providers.containers import ContainerProvider
from blacktree.providers.docker.address import engine_address
from blacktree.rpc.peer import OrchestratorSide
from blacktree.worker.bell import Bell
from blacktree.worker.front import Traffic
from blacktree.worker.identity import Identity
from blacktree.worker.lease import Lease
from blacktree.worker.replica_report import ReplicaReporter
from blacktree.worker.replica_secrets import SecretFiles
from blacktree.worker.replica_store import ReplicaStore
from blacktree.worker.replicas import Replicas
from blacktree.worker.surroundings import Surroundings
from blacktree.worker.volumes import engine_socket, mount_of


class Running:
    """Replicas, and what tells of them."""

    def __init__(self, replicas: Replicas, reporter: ReplicaReporter) -> None:
        self.replicas = replicas
        self._reporter = reporter

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; `started` once orders are taken. The containers outlive it."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.replicas.run)
            nursery.start_soon(self._reporter.run, name="replica report")
            task_status.started()


def find_running(
    config: WorkerConfig, identity: Identity, provider: Provider, side: OrchestratorSide, lease: Lease
) -> Running | None:
    """None where the provider has no containers."""
    if not isinstance(provider, ContainerProvider):
        return None
    bell, traffic, store = Bell(), Traffic(), ReplicaStore(identity.state, identity.incarnation)
    socket = engine_socket(config.engine, os.environ)
    around = Surroundings(
        containers=provider.containers,
        traffic=traffic,
        secrets=SecretFiles(identity.state, os.environ),
        mount=lambda volume: mount_of(volume, config.volume_roots, socket),
        farm=lambda: identity.last_admission().farm_id,
    )
    replicas = Replicas(identity.worker_id, provider.containers, store, around, bell, traffic)
    return Running(replicas, ReplicaReporter(side, identity, replicas, store, lease, bell))


def fence_of(config: WorkerConfig, identity: Identity, provider: Provider) -> list[str]:
    """What the guard needs to end replicas in this worker's place (`fence.Fence`); empty where there are none."""
    if config.provider != "docker" or not isinstance(provider, ContainerProvider):
        return []
    engine = str(engine_address(config.engine, os.environ))
    return [str(ReplicaStore(identity.state).home.absolute()), engine, identity.owner, identity.incarnation]
