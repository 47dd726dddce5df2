"""The labels of a replica's container: by them a worker finds again what it left."""

from blacktree.providers.containers import Container
from blacktree.rpc.replica import ReplicaName

REPLICA = "dev.blacktree.replica"
GENERATION = "dev.blacktree.replica.generation"
RUN = "dev.blacktree.replica.run"
NUMBER = "dev.blacktree.replica.number"
FARM = "dev.blacktree.farm"


def name_of(container: Container) -> tuple[ReplicaName, int] | None:
    """Which replica and generation a container is; None if its labels do not say."""
    try:
        deployment, version, index = container.labels[REPLICA].split("/")
        name = ReplicaName(deployment=deployment, version=int(version), index=int(index))
        return name, int(container.labels[GENERATION])
    except (KeyError, ValueError):
        return None


def number_of(container: Container) -> int | None:
    """Which container of its generation it is, from 1; None if its label does not say."""
    number = container.labels.get(NUMBER, "1")
    return int(number) if number.isascii() and number.isdigit() and len(number) < 10 and int(number) else None
