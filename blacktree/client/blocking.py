"""The same client for programs without Trio: every call waits, from whatever thread it comes."""

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, TypeVar

import msgspec
import trio

from blacktree.api import shapes
from blacktree.client.calls import Client as TrioClient
from blacktree.client.watch import JobWatch
from blacktree.errors import Unavailable

T = TypeVar("T")


class Client:
    """`with Client(server, token) as client:`; arguments, errors and reconnecting are `blacktree.client.Client`'s.

    Results are the structs of `blacktree.api.shapes`. One thread runs Trio for all calls; they may come from several
    threads. A call that is interrupted (Ctrl-C) is cancelled.
    """

    def __init__(self, server: str, token: str, **options: Any) -> None:
        """`options`: see `blacktree.client.Client`. Raises `BadRequest` for a server that is no address."""
        self._client = TrioClient(server, token, **options)
        self._thread: Thread | None = None
        self._token: trio.lowlevel.TrioToken
        self._stop: trio.Event

    def __enter__(self) -> "Client":
        opened: SimpleQueue[trio.lowlevel.TrioToken] = SimpleQueue()
        self._thread = Thread(target=trio.run, args=(self._serve, opened), name="blacktree-client", daemon=True)
        self._thread.start()
        self._token = opened.get()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._token.run_sync_soon(self._stop.set)
        assert self._thread is not None
        self._thread.join()

    async def _serve(self, opened: "SimpleQueue[trio.lowlevel.TrioToken]") -> None:
        self._stop = trio.Event()
        async with self._client:
            opened.put(trio.lowlevel.current_trio_token())
            await self._stop.wait()

    def _wait(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Run this on Trio's thread and wait for it there; an interrupt here ends it there."""
        ended: SimpleQueue[None] = SimpleQueue()
        results: list[T] = []
        failure: Exception = Unavailable("the client was closed meanwhile", code="answer_lost", again=False)
        scope = trio.CancelScope()

        async def run() -> None:
            nonlocal failure
            try:
                with scope:
                    results.append(await ask())
            except Exception as error:
                failure = error
            finally:
                ended.put(None)

        self._token.run_sync_soon(partial(trio.lowlevel.spawn_system_task, run))
        try:
            ended.get()
        except BaseException:
            self._token.run_sync_soon(scope.cancel)
            raise
        if not results:
            raise failure
        return results[0]

    def submit(self, spec: Mapping[str, Any], *, key: str | None = None) -> shapes.Job:
        """A new job, on record when this returns."""
        return _job(self._wait(partial(self._client.submit, spec, key=key)))

    def job(self, job_id: str) -> shapes.Job:
        """One job. Raises `NotFound`."""
        return _job(self._wait(partial(self._client.job, job_id)))

    def jobs(self, states: Collection[str] = (), *, limit: int = 50, cursor: str | None = None) -> shapes.JobPage:
        """A page of jobs, newest first; with its `cursor` one goes on."""
        found = self._wait(partial(self._client.jobs, states, limit=limit, cursor=cursor))
        return msgspec.convert(found, shapes.JobPage)

    def cancel(self, job_id: str, *, reason: str = "") -> shapes.Job:
        """Ask for the job's end and wait for it. An interrupt does not undo it."""
        return _job(self._wait(partial(self._client.cancel, job_id, reason=reason)))

    def retry(self, job_id: str) -> shapes.Job:
        """A new job like this one."""
        return _job(self._wait(partial(self._client.retry, job_id)))

    def events(self, job_id: str, from_seq: int = 1, *, limit: int = 1000) -> shapes.EventPage:
        """Events from a number on; none past the end."""
        found = self._wait(partial(self._client.events, job_id, from_seq, limit=limit))
        return msgspec.convert(found, shapes.EventPage)

    def workers(self) -> shapes.Workers:
        """The pool."""
        return msgspec.convert({"workers": self._wait(self._client.workers)}, shapes.Workers)

    def call(self, method: str, params: Mapping[str, Any], *, repeat: bool = True) -> dict[str, Any]:
        """Any method of docs/api.md, as plain values."""
        return self._wait(partial(self._client.call, method, params, repeat=repeat))

    def watch(self, job_id: str, from_seq: int = 1) -> "Watch":
        """`with client.watch(job) as watch: for event in watch: ...`. Raises `NotFound` on entering."""
        return Watch(self._wait, self._client.watch(job_id, from_seq))


class Watch:
    """A job's events, one by one, across lost connections, until it has ended. `next_seq` is where to go on later."""

    def __init__(
        self, wait: Callable[[Callable[[], Awaitable[Any]]], Any], manager: AbstractAsyncContextManager[JobWatch]
    ) -> None:
        self._wait = wait
        self._manager = manager
        self._watch: JobWatch
        self.next_seq = 1

    @property
    def job(self) -> shapes.Job:
        """The job as last told; after the last event, as it ended."""
        return _job(self._watch.job)

    def __enter__(self) -> "Watch":
        self._watch = self._wait(self._manager.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait(partial(self._manager.__aexit__, None, None, None))

    def __iter__(self) -> Iterator[shapes.Event]:
        while True:
            batch = self._wait(self._next)
            if batch is None:
                return
            for raw in batch.raw:
                event = _event(raw)
                self.next_seq = event.seq + 1
                yield event

    async def _next(self) -> Any:
        try:
            return await self._watch.__anext__()
        except StopAsyncIteration:
            return None


_event = msgspec.json.Decoder(shapes.Event).decode


def _job(value: dict[str, Any]) -> shapes.Job:
    return msgspec.convert(value, shapes.Job)
