"""The front ports of a worker: which there should be, where each leads, and why one is not open."""

import errno
from collections.abc import Iterable, Mapping
from weakref import WeakValueDictionary

import msgspec
import structlog
import trio

from blacktree.rpc.replica import ReplicaName, ReplicaOrder
from blacktree.worker.front import Front, Place, Traffic

log = structlog.get_logger()

OPEN_AGAIN_SECONDS = 0.5

Key = tuple[ReplicaName, int]
Address = tuple[str, int]


class Route(msgspec.Struct, frozen=True):
    """One front port: whose it is, and where it leads now."""

    deployment: str
    places: tuple[Place, ...]


class Candidate(msgspec.Struct, frozen=True):
    """A replica as the routes see it; `ports` is empty while it cannot take connections."""

    order: ReplicaOrder
    ports: Mapping[int, tuple[str, int]]


def routes(candidates: Iterable[Candidate], before: Mapping[Address, Route]) -> tuple[dict[Address, Route], set[str]]:
    """Where each front should lead, and the deployments that wanted a port which another one has. Pure.

    Those with `serve` decide. While none of them is healthy a front goes on leading where it led, as far as that still
    takes connections: a new version that dies at the moment of the switch must not take the old one with it.
    """
    found: dict[Address, Route] = {}
    refused: set[str] = set()
    serving: dict[Address, dict[str, list[Candidate]]] = {}
    living: dict[tuple[str, Key], Candidate] = {}
    for each in candidates:
        name = each.order.name
        living[name.deployment, (name, each.order.generation)] = each
        if each.order.serve:
            for port in each.order.run.ports:
                serving.setdefault((port.address, port.host), {}).setdefault(name.deployment, []).append(each)
    for address, deployments in serving.items():
        held = before[address].deployment if address in before else ""
        owner = held if held in deployments else min(deployments)
        refused |= set(deployments) - {owner}
        places = [place for each in deployments[owner] if (place := _place(each, address)) is not None]
        if not places and address in before and before[address].deployment == owner:
            places = [
                place
                for place in before[address].places
                if (old := living.get((owner, place.key))) is not None and old.ports  # type: ignore[arg-type]  # a Key
            ]
        found[address] = Route(owner, tuple(sorted(places, key=lambda place: (str(place.key), place.port))))
    return found, refused


def _place(candidate: Candidate, address: Address) -> Place | None:
    order = candidate.order
    for port in order.run.ports:
        if (port.address, port.host) == address and port.container in candidate.ports:
            return Place((order.name, order.generation), *candidate.ports[port.container])
    return None


class Fronts:
    """Opens and closes the ports that `lead` asks for; `troubles` says why a deployment's port is not open."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._fronts: dict[Address, tuple[Front, trio.CancelScope]] = {}
        # A front that was closed lives on in the connections that wait in it, and takes them along when it is opened
        # again: strategy `recreate` closes it between its two versions.
        self._lately: WeakValueDictionary[tuple[str, Address], Front] = WeakValueDictionary()
        self._nursery: trio.Nursery | None = None
        self._changed = trio.Event()
        self.routes: dict[Address, Route] = {}
        self.refused: set[str] = set()
        self._closed: dict[Address, str] = {}

    def lead(self, candidates: Iterable[Candidate]) -> None:
        """How the replicas stand now: new connections go by it from here on."""
        self.routes, self.refused = routes(candidates, self.routes)
        for address, (front, scope) in list(self._fronts.items()):
            if address not in self.routes:
                front.lead_to(())
                scope.cancel()
                del self._fronts[address]
                self._closed.pop(address, None)
            else:
                front.lead_to(self.routes[address].places)
        for address, route in self.routes.items():
            if address not in self._fronts and self._nursery is not None:
                front, scope = self._front(route.deployment, address), trio.CancelScope()
                front.lead_to(route.places)
                self._fronts[address] = front, scope
                self._nursery.start_soon(self._keep, front, scope, name=f"front {address[0]}:{address[1]}")

    def _front(self, deployment: str, address: Address) -> Front:
        key = deployment, address
        front = self._lately.get(key)
        if front is None:
            front = self._lately[key] = Front(*address, self._traffic)
        return front

    def leads_to(self, key: Key) -> bool:
        """Whether an open front leads to this replica."""
        return any(
            place.key == key
            for address, route in self.routes.items()
            if address not in self._closed
            for place in route.places
        )

    def trouble(self, deployment: str) -> str:
        """Why not all of its ports are open; empty if they are."""
        said = [
            f"port {address[0]}:{address[1]} {why}"
            for address, why in self._closed.items()
            if address in self.routes and self.routes[address].deployment == deployment
        ]
        if deployment in self.refused:
            said.append("another deployment on this worker has one of its ports")
        return "; ".join(said)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled: then connections are cut, too."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def _keep(self, front: Front, scope: trio.CancelScope) -> None:
        assert self._nursery is not None
        connections = self._nursery
        address = (front.address, front.port)
        with scope:
            while True:
                try:
                    listeners = await front.open()
                except OSError as error:
                    why = _why(error)
                    if self._closed.get(address) != why:
                        log.warning("front port not open", address=f"{address[0]}:{address[1]}", reason=why)
                        self._closed[address] = why
                        self._tell()
                    await trio.sleep(OPEN_AGAIN_SECONDS)
                    continue
                if self._closed.pop(address, None) is not None:
                    self._tell()
                log.info("front port open", address=f"{address[0]}:{address[1]}")
                await front.serve(listeners, connections)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self) -> None:
        """Wait until a port was opened, or could not be."""
        await self._changed.wait()


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "is taken by another program"
    if error.errno == errno.EACCES:
        return "may not be opened by this worker (ports below 1024 need CAP_NET_BIND_SERVICE)"
    if error.errno == errno.EADDRNOTAVAIL:
        return "is at an address that this machine does not have"
    return f"cannot be opened: {error.strerror or error}"
