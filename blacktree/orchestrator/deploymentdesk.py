"""`DeploymentDesk`: the answer to what the doors ask about deployments (the promise is `DeploymentControl`)."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import trio

from blacktree.clock import now
from blacktree.deployment import ENDED, DeployImage, Deployment, Placement, Version, stream_id
from blacktree.errors import BadRequest, Conflict, NotFound, TooLarge, Unavailable
from blacktree.event import Record
from blacktree.job import Job, JobState
from blacktree.orchestrator import releases
from blacktree.orchestrator.control import JobView, Readiness, Slice
from blacktree.orchestrator.deploymentcontrol import Deployed, DeploymentView, ReplicaView
from blacktree.orchestrator.deploymentrecord import Decide
from blacktree.orchestrator.deployments import Deployments
from blacktree.orchestrator.journal import Journal, Reader, stored
from blacktree.orchestrator.placement import Facts, candidates, clash, survey, why_nowhere
from blacktree.orchestrator.runsecrets import RunSecrets
from blacktree.rpc.peer import MAX_MESSAGE_BYTES
from blacktree.rpc.replica import ReplicaName
from blacktree.spec import JobSpec
from blacktree.storage.base import Store

MAX_LIMIT = 10_000
MAX_RECORD_BYTES = 1 << 20  # for who looks through a whole log: fewer ways to the store than small pieces
STOP_SECONDS = 60.0
_PAGE, _PAGES = 200, 10

Submit = Callable[..., Awaitable[tuple[JobView, bool]]]


class DeploymentDesk:
    """Accepts, shows, stops. Holds no state of its own; `kept` does. `declared`: run secrets that sources name."""

    def __init__(
        self,
        store: Store,
        kept: Deployments,
        journal: Journal,
        secrets: RunSecrets,
        *,
        submit: Submit,
        readiness: Callable[[], Readiness],
        declared: Callable[[], set[str]] = set,
    ) -> None:
        self._store = store
        self._journal = journal
        self._secrets = secrets
        self._submit = submit
        self._readiness = readiness
        self._declared = declared
        self.kept = kept

    # Deploying

    async def deploy(self, wanted: DeployImage | JobSpec, *, key: str | None = None, actor: str = "") -> Deployed:
        """See `DeploymentControl.deploy`."""
        if wanted.run is None:
            raise BadRequest("spec.run: is missing: it says how the image is run", path="spec.run", code="invalid")
        repository = wanted.repository if isinstance(wanted, JobSpec) else None
        await self._secrets.check(wanted.run, None, repository)
        version = Version(number=0, run=wanted.run, created_at=now(), pool=wanted.pool, repository=repository)
        await self._check_ports(version)
        await self._check_room(version)
        begins = await self._end(wanted.run.name)
        if isinstance(wanted, JobSpec):
            view, new = await self._submit(wanted, key=key, actor=actor)
            found = await self.get(wanted.run.name)
            numbers = [each.number for each in found.deployment.versions if each.job_id == view.job.id]
            return Deployed(
                view=found, version=numbers[-1] if numbers else 0, from_seq=begins, job_id=view.job.id, new=new
            )
        self._check_open()
        version = msgspec.structs.replace(version, key=key or "", asked=_digest(wanted) if key else "")
        number, new = await self.kept.record.add(await self._with_image(version, wanted))
        return Deployed(view=await self.get(wanted.run.name), version=number, from_seq=begins, new=new)

    def _check_open(self) -> None:
        if (state := self._readiness().state) in ("draining", "starting"):
            raise Unavailable(f"the farm is {state}", code=state, advice="ask again in a moment")

    async def _check_ports(self, version: Version) -> None:
        """Refuse what no worker could have as things stand; without a worker it may wait for one."""
        land = survey(await self.kept.record.all(), version.run.name)
        possible = candidates(version, self.kept.facts())
        clashes = [clash(version.run.ports, land.taken.get(each.id, ())) for each in possible]
        if clashes and all(row is not None and not row.leaving for row in clashes) and (row := clashes[0]):
            raise Conflict(
                f"port {row.address}:{row.port} belongs to deployment {row.deployment}",
                code="port_taken",
                advice="use another host port, or stop that deployment first",
            )

    async def _check_room(self, version: Version) -> None:
        """Refuse what no worker's list of orders could hold as things stand."""
        possible = candidates(version, self.kept.facts())
        for each in possible:
            if await self.kept.has_room(each.id, version):
                return
        if possible:
            raise TooLarge(
                f"every worker in pool `{version.pool}` has so many deployments and secrets that the list of all with"
                f" this one is larger than {MAX_MESSAGE_BYTES} bytes",
                path="spec.run",
                code="worker_full",
                advice="stop deployments, put large secrets into volumes, or add a worker",
            )

    async def _with_image(self, version: Version, wanted: DeployImage) -> Version:
        """An image that this farm built and did not push is where it was built; any other comes from its registry."""
        fields: dict[str, Any] = {"image": wanted.image, "pull": True, "reference": wanted.image}
        if wanted.image.startswith("sha256:"):
            fields["pull"] = False
        if (job := await self._built(wanted.image)) is not None:
            fields |= releases.image_of(job) | {"job_id": job.id}
        return msgspec.structs.replace(version, **fields)

    async def _built(self, image: str) -> Job | None:
        """The newest of our builds that gave this image this name, if it is among the recent ones."""
        cursor: str | None = None
        last = image.rpartition("/")[2]
        names = {image, *([] if ":" in last or "@" in last else [f"{image}:latest"])}
        for _ in range(_PAGES):
            page = await self._store.find([JobState.SUCCEEDED], limit=_PAGE, cursor=cursor)
            for job in page.jobs:
                if job.image is not None and names & {job.image.id, job.image.reference, *job.image.references}:
                    return job
            cursor = page.cursor
            if cursor is None:
                break
        return None

    # Asking

    async def all(self) -> Sequence[DeploymentView]:
        """See `DeploymentControl.all`."""
        facts = self.kept.facts()
        return [_view(each, facts) for each in await self.kept.record.all()]

    async def get(self, name: str) -> DeploymentView:
        """See `DeploymentControl.get`."""
        return _view(await self.kept.record.get(name), self.kept.facts())

    async def wait_changed(self, since: int) -> int:
        """See `DeploymentControl.wait_changed`."""
        return await self.kept.record.wait_changed(since)

    # Commanding

    async def stop(self, name: str, *, actor: str = "") -> DeploymentView:
        """See `DeploymentControl.stop`."""
        await self._change(name, lambda found: releases.stop(found, now()))
        version = 0
        with trio.move_on_after(STOP_SECONDS):
            while any(each.state not in ENDED for each in (await self.kept.record.get(name)).versions):
                version = await self.kept.record.wait_changed(version)
        return await self.get(name)

    async def restart(self, name: str, *, actor: str = "") -> DeploymentView:
        """See `DeploymentControl.restart`."""
        self._check_open()
        await self._change(name, lambda found: releases.restart(found, now()))
        return await self.get(name)

    async def rollback(self, name: str, version: int | None = None, *, actor: str = "") -> Deployed:
        """See `DeploymentControl.rollback`."""
        self._check_open()
        begins = await self._end(name)
        after = await self._change(name, lambda found: releases.rollback(found, version, now()))
        return Deployed(view=await self.get(name), version=after.next_version - 1, from_seq=begins)

    async def delete(self, name: str, *, secrets: bool = False, actor: str = "") -> DeploymentView:
        """See `DeploymentControl.delete`."""
        damaged = name in self.kept.record.damaged
        view = _view(releases.new(name, now()), {}) if damaged else await self.get(name)
        named = {each for version in view.deployment.versions for each in version.run.secrets} if secrets else set()
        await self.kept.delete(name, by=f" by {actor}" if actor else "")
        others = {
            each for other in await self.kept.record.all() for version in other.versions for each in version.run.secrets
        }
        for each in sorted(named - others - self._declared()):
            await self._secrets.remove(each, actor=actor)
        return view

    async def _change(self, name: str, decide: Callable[[Deployment], Deployment]) -> Deployment:
        await self.kept.record.get(name)
        last: list[Deployment] = []

        def checked(found: Deployment | None) -> Deployment:
            if found is None:
                raise NotFound(f"no deployment {name!r}")
            last[:] = [decide(found)]
            return last[0]

        given: Decide = checked
        await self.kept.record.change(name, given)
        return last[0]

    # Reading

    async def events(self, name: str, from_seq: int, limit: int) -> Slice:
        """See `DeploymentControl.events`."""
        await self._stream(name)
        return await stored(self._store, stream_id(name), from_seq, max(1, min(limit, MAX_LIMIT)))

    async def records(self, name: str, from_seq: int, limit: int) -> list[tuple[int, Record]]:
        """See `DeploymentControl.records`."""
        await self._stream(name)
        wanted = max(1, min(limit, MAX_LIMIT))
        return await self._store.read(stream_id(name), from_seq, limit=wanted, max_bytes=MAX_RECORD_BYTES)

    async def first_seq(self, name: str) -> int:
        """See `DeploymentControl.first_seq`."""
        job = await self._stream(name)
        return job.stream.first_seq if job.stream is not None else 1

    async def next_seq(self, name: str) -> int:
        """See `DeploymentControl.next_seq`."""
        return (await self._stream(name)).next_seq

    def follow(self, name: str, from_seq: int) -> AbstractAsyncContextManager[Reader]:
        """See `DeploymentControl.follow`."""
        return self._journal.follow(stream_id(name), from_seq)

    async def text_size(self, name: str) -> tuple[int, int]:
        """See `DeploymentControl.text_size`."""
        job = await self._stream(name)
        return job.stream.text_first if job.stream is not None else 0, await self._store.text_size(job.id)

    async def read_text(self, name: str, offset: int, max_bytes: int) -> bytes:
        """See `DeploymentControl.read_text`."""
        return await self._store.read_text(stream_id(name), offset, max_bytes)

    async def _end(self, name: str) -> int:
        try:
            return (await self._store.get(stream_id(name))).next_seq
        except NotFound:
            return 1

    async def _stream(self, name: str) -> Job:
        await self.kept.record.get(name)
        try:
            return await self._store.get(stream_id(name))
        except NotFound:
            # Accepted this moment; nothing has been told of it yet.
            await self.kept.logs.open(name)
            if name not in self.kept.record.known:
                await self.kept.logs.drop(name)
            return await self._store.get(stream_id(name))


def _view(deployment: Deployment, facts: Facts) -> DeploymentView:
    places = sorted(deployment.placements, key=lambda each: (each.version, each.index))
    replicas = [_replica(deployment, each, facts) for each in places]
    return DeploymentView(deployment=deployment, replicas=replicas, waiting=_waiting(deployment, replicas, facts))


def _replica(deployment: Deployment, place: Placement, facts: Facts) -> ReplicaView:
    fact = facts.get(place.worker_id)
    name = ReplicaName(deployment=deployment.name, version=place.version, index=place.index)
    state = fact.states.get(name) if fact is not None else None
    here = fact is not None and fact.alive
    if state is None or not here or state.generation != place.generation:
        word = ("stopping" if place.stopping else "ordered") if here else "unknown"
        return ReplicaView(
            version=place.version, index=place.index, worker_id=place.worker_id, state=word, incoming=place.incoming
        )
    return ReplicaView(
        version=place.version,
        index=place.index,
        worker_id=place.worker_id,
        state=state.state,
        since=state.since,
        serving=state.serving,
        restarts=state.restarts,
        exit_code=state.exit_code,
        oom_killed=state.oom_killed,
        code=state.code,
        reason=state.reason,
        address=state.address,
        container=state.container,
        incoming=place.incoming,
    )


def _waiting(deployment: Deployment, replicas: Sequence[ReplicaView], facts: Facts) -> str:
    """Why the version that is to take over has not done so yet."""
    target = deployment.version(deployment.target)
    if target is None or deployment.desired == "stopped":
        return ""
    own = [each for each in replicas if each.version == target.number]
    lost = sorted({each.worker_id for each in own if each.state == "unknown"})
    if lost:
        return f"worker {', '.join(lost)} is not here"
    if len(own) < target.run.replicas:
        if not candidates(target, facts):
            return why_nowhere(target, facts)
        others = any(each.version != target.number for each in replicas)
        return "the old version to stop" if others else "a worker with room for it"
    for each in own:
        name = ReplicaName(deployment=deployment.name, version=each.version, index=each.index)
        fact = facts.get(each.worker_id)
        if fact is not None and (reason := fact.waiting.get(name)):
            return reason
    ready = sum(each.state == "healthy" for each in own)
    if ready < target.run.replicas:
        return f"{ready} of {target.run.replicas} replicas are healthy"
    return "it to stay healthy" if target.run.strategy.settle_seconds else ""


def _digest(wanted: DeployImage) -> str:
    return hashlib.sha256(msgspec.msgpack.encode(wanted)).hexdigest()
