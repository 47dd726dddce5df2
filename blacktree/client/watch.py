"""Reading a job's events as they happen, across lost connections and restarts of the server."""

from typing import Any

import msgspec
import trio

from blacktree.client.link import Endpoint, Incoming, Link, Lost, told
from blacktree.client.outage import Outage
from blacktree.errors import Broken, Unavailable

_MOST_GAPS = 5


class _Seq(msgspec.Struct, frozen=True):
    seq: int


class _Events(msgspec.Struct, frozen=True):
    watch: int
    events: msgspec.Raw


class _Job(msgspec.Struct, frozen=True):
    watch: int
    job: dict[str, Any]


class Batch:
    """Some events in order, without a gap to the batch before."""

    def __init__(self, raw: list[msgspec.Raw]) -> None:
        self._raw = raw

    @property
    def raw(self) -> list[bytes]:
        """Each event's JSON as it was sent."""
        return [bytes(each) for each in self._raw]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events, decoded."""
        return [msgspec.json.decode(each) for each in self._raw]

    def __len__(self) -> int:
        return len(self._raw)


class JobWatch:
    """`async for batch in watch`: until the job has ended; then `job` is the ended job.

    `job` is the job as last told, `next_seq` what comes next. Raises `NotFound`, `NotAllowed`, and `Unavailable`
    (code `server_unreachable`) when the server stays away longer than the client's patience.
    """

    def __init__(self, endpoint: Endpoint, nursery: trio.Nursery, job_id: str, from_seq: int, outage: Outage) -> None:
        self._endpoint = endpoint
        self._nursery = nursery
        self._id = job_id
        self._outage = outage
        self._link: Link | None = None
        self._gaps = 0
        self._over = False
        self.next_seq = max(1, from_seq)
        self.job: dict[str, Any] = {}

    async def open(self) -> None:
        """Connect and begin, unless that is done already."""
        while self._link is None or not self._link.usable:
            try:
                self._link = await self._endpoint.open(self._nursery)
                result = await self._link.ask("job.watch", {"id": self._id, "from_seq": self.next_seq})
            except Lost as lost:
                await self._lose(str(lost))
            except Unavailable as error:
                if not error.again:
                    raise
                await self._lose(error.message)
            else:
                self.job = msgspec.json.decode(result, type=_Job).job
                self._outage.over()

    def be_patient(self, outage: Outage) -> None:
        """From here on, ride out what comes as this says."""
        self._outage = outage

    def close(self) -> None:
        """Stop reading."""
        if self._link is not None:
            self._link.drop()

    def __aiter__(self) -> "JobWatch":
        return self

    async def __anext__(self) -> Batch:
        while not self._over:
            await self.open()
            assert self._link is not None
            try:
                message = await self._link.receive()
            except Lost as lost:
                await self._lose(str(lost))
                continue
            batch = await self._understand(message)
            if batch is not None:
                return batch
        self.close()
        raise StopAsyncIteration

    async def _understand(self, message: Incoming) -> Batch | None:
        if message.method == "job.events":
            return await self._events(msgspec.json.decode(message.params, type=_Events).events)
        if message.method == "job.end":
            self.job = msgspec.json.decode(message.params, type=_Job).job
            self._over = True
        elif message.method == "watch.failed":
            error = msgspec.json.decode(message.params)["error"]
            failure = told(error)
            if not failure.again:
                raise failure
            await self._lose(failure.message)
        return None

    async def _events(self, body: msgspec.Raw) -> Batch | None:
        seqs = msgspec.json.decode(body, type=list[_Seq])
        first = next((index for index, event in enumerate(seqs) if event.seq >= self.next_seq), None)
        if first is None:
            return None
        if seqs[first].seq != self.next_seq:
            self._gaps += 1
            if self._gaps > _MOST_GAPS:
                raise Broken(f"event {self.next_seq} of job {self._id} is missing", code="log_gap")
            await self._lose(f"event {self.next_seq} did not come")
            return None
        self._gaps = 0
        self.next_seq = seqs[-1].seq + 1
        return Batch(msgspec.json.decode(body, type=list[msgspec.Raw])[first:])

    async def _lose(self, reason: str) -> None:
        self.close()
        self._link = None
        await self._outage.pause(reason)
