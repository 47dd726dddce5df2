"""`Client`: what one can ask of a farm. A call has a connection to itself while it lasts, and so has a watch."""

import secrets
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any

import msgspec
import trio

from blacktree.client.deploymentwatch import DeploymentWatch
from blacktree.client.farmwatch import FarmWatch
from blacktree.client.link import Endpoint, Link, Lost
from blacktree.client.outage import Outage, Told
from blacktree.client.watch import JobWatch
from blacktree.errors import Unavailable

_WAIT_SECONDS = 25.0
_IDLE_LINKS = 4


class Client:
    """`async with Client(server, token) as client:`; every method raises the tree of `blacktree.errors`.

    A server that never answered is reported at once (`Unavailable`, code `server_unreachable`). One that goes away
    later is tried again for `patience_seconds`; `on_outage` is then told once, in a sentence.
    """

    def __init__(
        self,
        server: str,
        token: str,
        *,
        patience_seconds: float = 300.0,
        on_outage: Told | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._endpoint = Endpoint(server, token, ssl_context=ssl_context)
        self._patience = patience_seconds
        self._on_outage = on_outage
        self._reached = False
        self._idle: list[Link] = []
        self._nursery: trio.Nursery
        self._manager: AbstractAsyncContextManager[trio.Nursery]

    async def __aenter__(self) -> "Client":
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._nursery.cancel_scope.cancel()
        try:
            await self._manager.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            # The nursery wraps what the body raised; nothing else can come, its tasks swallow their own.
            if error is not None and group.exceptions == (error,):
                raise error from error.__cause__
            raise

    async def submit(self, spec: Mapping[str, Any], *, key: str | None = None) -> dict[str, Any]:
        """A new job, on record when this returns. Sent again after a lost connection: a key makes that harmless."""
        key = key or spec.get("idempotency_key") or f"auto-{secrets.token_hex(12)}"
        return await self._job("job.submit", {**spec, "idempotency_key": key})

    async def job(self, job_id: str) -> dict[str, Any]:
        """One job. Raises `NotFound`."""
        return await self._job("job.get", {"id": job_id})

    async def jobs(self, states: Collection[str] = (), *, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
        """`{"jobs": [...], "cursor": ...}`, newest first."""
        return await self._job("job.list", {"state": list(states), "limit": limit, "cursor": cursor})

    async def cancel(self, job_id: str, *, reason: str = "") -> dict[str, Any]:
        """Ask for the job's end and wait for it, however long that takes. Leaving does not undo it."""
        return await self._job("job.cancel", {"id": job_id, "reason": reason})

    async def retry(self, job_id: str) -> dict[str, Any]:
        """A new job like this one. Not sent again when the connection is lost: it might make two."""
        return await self._job("job.retry", {"id": job_id}, repeat=False)

    async def events(self, job_id: str, from_seq: int = 1, *, limit: int = 1000) -> dict[str, Any]:
        """`{"events": [...], "next_seq": n}`; empty past the end."""
        return await self._job("job.events", {"id": job_id, "from_seq": from_seq, "limit": limit})

    async def workers(self) -> list[dict[str, Any]]:
        """The pool."""
        workers: list[dict[str, Any]] = (await self._job("worker.list", {}))["workers"]
        return workers

    async def drain(self, worker_id: str, *, undo: bool = False) -> dict[str, Any]:
        """Let a worker take nothing more, or again. Raises `NotFound`."""
        return await self._job("worker.drain", {"id": worker_id, "drain": not undo})

    async def call(self, method: str, params: Mapping[str, Any], *, repeat: bool = True) -> dict[str, Any]:
        """Any method of the server. `repeat`: ask again when the connection is lost before the answer came."""
        return await self._job(method, params, repeat=repeat)

    async def server_info(self) -> dict[str, Any]:
        """`{"version", "status", "reasons"}`."""
        return await self._job("farm.info", {})

    async def farm_events(self, from_seq: int = 1, *, limit: int = 1000, wait: float = 0.0) -> dict[str, Any]:
        """`{"events": [...], "next_seq": n}` of the farm itself; `wait` seconds for the first, if there is none yet."""
        return await self._job("farm.events", {"from_seq": from_seq, "limit": limit, "wait": wait})

    async def follow_farm_events(self, from_seq: int = 1) -> AsyncIterator[list[dict[str, Any]]]:
        """The farm's own events, batch by batch, without end."""
        while True:
            found = await self.farm_events(from_seq, wait=_WAIT_SECONDS)
            from_seq = found["next_seq"]
            if found["events"]:
                yield found["events"]

    @asynccontextmanager
    async def watch(self, job_id: str, from_seq: int = 1) -> AsyncIterator[JobWatch]:
        """A job's events from `from_seq` on, until it ends. Raises `NotFound` on entering."""
        patience = self._patience if self._reached else 0.0
        watch = JobWatch(self._endpoint, self._nursery, job_id, from_seq, self._outage(patience))
        try:
            await watch.open()
            self._reached = True
            watch.be_patient(self._outage(self._patience))
            yield watch
        finally:
            watch.close()

    @asynccontextmanager
    async def watch_deployment(self, name: str, from_seq: int = 1) -> AsyncIterator[DeploymentWatch]:
        """A deployment and its events from `from_seq` on, without end. Raises `NotFound` on entering."""
        patience = self._patience if self._reached else 0.0
        watch = DeploymentWatch(self._endpoint, self._nursery, name, from_seq, self._outage(patience))
        try:
            await watch.open()
            self._reached = True
            watch.be_patient(self._outage(self._patience))
            yield watch
        finally:
            watch.close()

    @asynccontextmanager
    async def watch_farm(self, on_outage: Told | None = None) -> AsyncIterator[FarmWatch]:
        """The farm as it changes, without end. `on_outage` is told in place of the client's own."""
        patience = self._patience if self._reached else 0.0
        outage = Outage(self._endpoint.server, patience, on_outage or self._on_outage)
        watch = FarmWatch(self._endpoint, self._nursery, outage)
        try:
            yield watch
        finally:
            watch.close()

    def _outage(self, patience: float) -> Outage:
        return Outage(self._endpoint.server, patience, self._on_outage)

    async def _job(self, method: str, params: Mapping[str, Any], *, repeat: bool = True) -> dict[str, Any]:
        value: dict[str, Any] = msgspec.json.decode(await self._call(method, params, repeat))
        return value

    async def _call(self, method: str, params: Mapping[str, Any], repeat: bool) -> msgspec.Raw:
        outage = self._outage(self._patience if self._reached else 0.0)
        while True:
            try:
                link = await self._free_link()
            except Lost as lost:
                await outage.pause(str(lost))
                continue
            self._reached = True
            try:
                result = await link.ask(method, params)
            except Lost as lost:
                if not repeat:
                    raise Unavailable(
                        f"{lost} before the answer came",
                        code="answer_lost",
                        advice="look at the list of jobs before you ask again",
                        again=False,
                    ) from None
                outage = self._outage(self._patience) if outage.hopeless else outage
                await outage.pause(str(lost))
            except trio.Cancelled:
                # Its answer would come to whoever borrowed it next.
                link.drop()
                raise
            except BaseException:
                self._give_back(link)
                raise
            else:
                self._give_back(link)
                return result

    async def _free_link(self) -> Link:
        while self._idle:
            link = self._idle.pop()
            if link.usable:
                return link
            link.drop()
        return await self._endpoint.open(self._nursery)

    def _give_back(self, link: Link) -> None:
        if link.usable and len(self._idle) < _IDLE_LINKS:
            self._idle.append(link)
        else:
            link.drop()
