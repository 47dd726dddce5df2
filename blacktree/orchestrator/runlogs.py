"""What deployments print and what happens to them: one stream each, gapless over versions, replicas and restarts."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import msgspec

from blacktree.clock import now
from blacktree.deployment import Deployment, VersionState, public_version, stream_id
from blacktree.errors import BadRequest, NotFound
from blacktree.event import Lines, Record, StateChanged
from blacktree.job import Job, JobState, Stream
from blacktree.rpc.replica import ReplicaLog, ReplicaName, ReplicaStored
from blacktree.spec import JobSpec
from blacktree.storage.base import Commit, Decision, Outgoing, Store

MAX_WRITERS = 1000
_HAPPENINGS = "happenings"
_BEGAN = "began"
_OURS = frozenset({_HAPPENINGS, _BEGAN})
_TOLD = frozenset({VersionState.RUNNING, VersionState.FAILED, VersionState.STOPPED})


class RuntimeLogs:
    """`keep_bytes`: so much of each stream is kept. `status`: whether ends of versions go to `status.queue`.

    `herald`: what outgoing webhooks are told of one change."""

    def __init__(
        self,
        store: Store,
        *,
        keep_bytes: int,
        status: bool,
        herald: Callable[[Deployment, Record, str], list[Outgoing]] = lambda *_: [],
    ) -> None:
        self._store = store
        self._keep_bytes = keep_bytes
        self._status = status
        self._herald = herald
        self._grown: dict[str, int] = {}
        self.stored_lines = 0
        self.kept: Callable[[str], bool] = lambda name: True
        """Whether there is a deployment of this name: nobody else's stream is made (again)."""

    async def open(self, name: str) -> None:
        """Make the stream of a deployment, if there is none."""
        moment = now()
        stream = Job(
            id=stream_id(name),
            state=JobState.RUNNING,
            spec=JobSpec(repository="deployment"),
            created_at=moment,
            queued_at=moment,
            stream=Stream(),
        )
        await self._store.create(stream, [], [])

    async def drop(self, name: str) -> None:
        """Forget all that a deployment has printed and told."""
        await self._store.discard(stream_id(name))
        self._grown.pop(name, None)

    async def tell(self, deployment: Deployment) -> int:
        """Put what happened on the stream, each once however often it is told; answers the number it goes on with."""
        commit = await self._append(deployment.name, lambda job: self._happened(job, deployment))
        assert commit.job.stream is not None
        return commit.job.stream.written.get(_HAPPENINGS, 1)

    def _happened(self, job: Job, deployment: Deployment) -> Decision | None:
        began = int(deployment.created_at.timestamp() * 1_000_000)
        written = _written(job)
        # One of that name that was withdrawn has left its stream: this one counts from 1 again.
        same = written.get(_BEGAN, began) == began
        expected = written.get(_HAPPENINGS, 1) if same else 1
        fresh = [each for each in deployment.happenings if each.number >= expected]
        if not fresh:
            return None
        outgoing: list[Outgoing] = []
        for each in fresh:
            record = each.record
            outgoing += self._herald(deployment, record, job.id)
            if self._status and type(record) is StateChanged and record.to in _TOLD:
                body = status_body(deployment, record)
                outgoing.append(Outgoing(kind="deployment", job_id=job.id, generation=each.number, body=body))
        return Decision(
            job=_with_written(job, {_HAPPENINGS: fresh[-1].number + 1, _BEGAN: began}),
            records=tuple(each.record for each in fresh),
            outgoing=tuple(outgoing),
        )

    async def take(self, logs: Sequence[ReplicaLog], wanted: Callable[[ReplicaName], bool]) -> list[ReplicaStored]:
        """Store what is new; answers where each replica's output goes on. Durable on return."""
        by_name: dict[str, list[ReplicaLog]] = defaultdict(list)
        stored: dict[tuple[ReplicaName, int], int] = {}
        for log in logs:
            if wanted(log.name):
                by_name[log.name.deployment].append(log)
            else:
                stored[log.name, log.generation] = log.number + 1
        for name, some in by_name.items():
            try:
                written = await self._take(name, some)
            except NotFound:
                # It was deleted in this moment: nobody will ever ask for it.
                written = {}
            for log in some:
                # A piece whose writer is forgotten is not wanted any more.
                stored[log.name, log.generation] = written.get(_writer(log), log.number + 1)
            self.stored_lines += sum(_count(log.records) for log in some)
            await self._trim(name, sum(_size(log.records) for log in some))
        return [
            ReplicaStored(name=name, generation=generation, next_number=number)
            for (name, generation), number in stored.items()
        ]

    async def _take(self, name: str, logs: Sequence[ReplicaLog]) -> Mapping[str, int]:
        try:
            commit = await self._append(name, lambda job: _taken(job, logs))
        except BadRequest:
            # What cannot be stored never will be: pass over it rather than wait for ever.
            commit = await self._append(name, lambda job: _taken(job, logs, keep=False))
        return _written(commit.job)

    async def _append(self, name: str, decide: Callable[[Job], Decision | None]) -> Commit:
        try:
            return await self._store.change(stream_id(name), decide)
        except NotFound:
            if not self.kept(name):
                raise
            await self.open(name)
            return await self._store.change(stream_id(name), decide)

    async def _trim(self, name: str, grown: int) -> None:
        total = self._grown.get(name, 0) + grown
        if total >= self._keep_bytes // 8:
            await self._store.trim(stream_id(name), self._keep_bytes)
            total = 0
        self._grown[name] = total


def _taken(job: Job, logs: Sequence[ReplicaLog], *, keep: bool = True) -> Decision | None:
    written = _written(job)
    after: dict[str, int] = {}
    records: list[Record] = []
    for log in logs:
        writer = _writer(log)
        expected = after.get(writer, written.get(writer, 1))
        if log.number == expected:
            after[writer] = expected + 1
            if keep:
                records += [_shown(record, log.name) for record in log.records]
        elif writer in written:
            after.setdefault(writer, expected)
    if all(written.get(writer) == number for writer, number in after.items()):
        return None
    return Decision(job=_with_written(job, after), records=tuple(records))


def _shown(record: Record, name: ReplicaName) -> Record:
    """As readers see it: the attempt is the version, the step tells the replica."""
    step = f"{name.version}/{name.index}"
    if type(record) is StateChanged or not hasattr(record, "step"):
        return msgspec.structs.replace(record, attempt=name.version)
    return msgspec.structs.replace(record, attempt=name.version, step=step)


def _written(job: Job) -> Mapping[str, int]:
    return job.stream.written if job.stream is not None else {}


def _with_written(job: Job, numbers: Mapping[str, int]) -> Job:
    stream = job.stream or Stream()
    # The newest writers stand at the end, so that the first is the one to let go.
    written = {key: value for key, value in stream.written.items() if key not in numbers} | dict(numbers)
    while len(written) > MAX_WRITERS:
        del written[next(key for key in written if key not in _OURS)]
    return msgspec.structs.replace(job, stream=msgspec.structs.replace(stream, written=written))


def _writer(log: ReplicaLog) -> str:
    return f"{log.name.version}/{log.name.index}/{log.generation}"


def _size(records: Sequence[Record]) -> int:
    return sum(len(record.text) for record in records if type(record) is Lines)


def _count(records: Sequence[Record]) -> int:
    return sum(record.text.count("\n") for record in records if type(record) is Lines)


def status_body(deployment: Deployment, record: StateChanged) -> bytes:
    """What `status.queue` gets when a version runs, fails or stops."""
    version = deployment.version(record.attempt)
    failed = record.to == VersionState.FAILED
    value = {
        "deploymentId": deployment.name,
        "success": not failed,
        "imageUrl": (version.reference or version.image or None) if version is not None else None,
        "logs": "\n".join(version.last_lines) if version is not None and failed else "",
        "error": record.reason if failed else None,
        "version": record.attempt,
        "state": record.to,
    }
    if version is not None:
        value["deployment"] = {"name": deployment.name, "version": public_version(version) | {"run": version.run.name}}
    return msgspec.json.encode(value)
