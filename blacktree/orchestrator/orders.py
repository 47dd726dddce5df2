"""The complete list of what each worker should run, from what is on record."""

from collections.abc import Iterable

import msgspec

from blacktree.deployment import Deployment
from blacktree.rpc.replica import RegistryLogin, ReplicaName, ReplicaOrder
from blacktree.runspec import RunSpec


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """An order before its secrets: what changes here is news for the worker.

    `source` and `repository` decide which secrets it may have.
    """

    name: ReplicaName
    generation: int
    image: str
    pull: bool
    serve: bool
    run: RunSpec
    source: str | None = None
    repository: str | None = None


def plans(deployments: Iterable[Deployment]) -> dict[str, list[Plan]]:
    """Each worker's list, in the order of the names."""
    found: dict[str, list[Plan]] = {}
    for deployment in deployments:
        for place in deployment.placements:
            version = deployment.version(place.version)
            if place.stopping or version is None:
                continue
            name = ReplicaName(deployment=deployment.name, version=place.version, index=place.index)
            plan = Plan(
                name=name,
                generation=place.generation,
                image=version.image,
                pull=version.pull,
                serve=deployment.serving == place.version,
                run=version.run,
                source=version.source,
                repository=version.repository,
            )
            found.setdefault(place.worker_id, []).append(plan)
    return {worker_id: sorted(some, key=lambda each: each.name) for worker_id, some in found.items()}


def order(plan: Plan, secrets: dict[str, bytes], logins: dict[str, RegistryLogin]) -> ReplicaOrder:
    """The order of a plan."""
    return ReplicaOrder(
        name=plan.name,
        generation=plan.generation,
        image=plan.image,
        pull=plan.pull,
        serve=plan.serve,
        run=plan.run,
        secrets=secrets,
        logins=logins,
    )
