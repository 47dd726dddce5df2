"""For stand-ins that have nothing to do with replicas: what a side says that runs none, or takes no reports of them."""

from blacktree.errors import NotAllowed
from blacktree.rpc.replica import ReplicaAck, ReplicaAnswer, ReplicaOrders, ReplicaReport


class RunsNoReplicas:
    """Part of a `WorkerSide`."""

    async def apply_replicas(self, orders: ReplicaOrders) -> ReplicaAck:
        raise NotAllowed("this worker runs no replicas", code="no_replicas")


class TakesNoReplicas:
    """Part of an `OrchestratorSide`."""

    async def report_replicas(self, report: ReplicaReport) -> ReplicaAnswer:
        return ReplicaAnswer(known=False)
