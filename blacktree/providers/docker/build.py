"""Image builds by the engine's BuildKit: `POST /build?version=2` with our own session."""

import base64
import binascii
import json
import secrets
from collections.abc import Mapping, Sequence

import trio
from google.protobuf.message import DecodeError

from blacktree.errors import BlacktreeError, EngineLost, StepFailed
from blacktree.providers.base import BuildRequest, BuiltImage, Entry, Sink
from blacktree.providers.docker.ending import ASK_SECONDS, END_SECONDS, Exchange, Outlet
from blacktree.providers.docker.faults import failure
from blacktree.providers.docker.generated import buildkit_pb2 as wire
from blacktree.providers.docker.progress import Clipped, Event, Finished, Moved, Output, Progress, Started
from blacktree.providers.docker.scope import open_tasks
from blacktree.providers.docker.session import Session
from blacktree.providers.docker.stream import Connector, EngineRefused, Params, parsed
from blacktree.providers.docker.verdict import image_of

_TRACE = "moby.buildkit.trace"
# What 20.10 sends by the million when its log limits are lifted; not worth decoding.
_EMPTY_TRACE = b'"aux":""}'


class BuildKitBuild:
    """One build. `progress` can be watched from outside; `heard` is whether the engine said its last word."""

    def __init__(
        self,
        connector: Connector,
        request: BuildRequest,
        sink: Sink,
        labels: Mapping[str, str],
        entries: Sequence[Entry],
    ) -> None:
        self.key = secrets.token_hex(16)
        self.progress = Progress()
        self.asked = False
        self.heard = False
        self._connector = connector
        self._request = request
        self._sink = Outlet(sink, self._give_up)
        self._limit = trio.CancelScope()
        self._labels = labels
        self._entries = entries

    async def run(self) -> BuiltImage:
        """Build. Raises `StepFailed` or `EngineLost`; cancelled, it has asked the engine to stop and waited."""
        exchange = Exchange(self._talk, self._stop)
        try:
            return await exchange.run()
        finally:
            self.heard = self.heard and exchange.ended

    async def _give_up(self) -> None:
        self._limit.deadline = trio.current_time() + END_SECONDS
        with trio.move_on_after(ASK_SECONDS):
            await self._stop()

    async def _stop(self) -> None:
        self._sink.close_soon()
        try:
            async with self._connector.open("POST", "/build/cancel", {"id": self.key}) as answer:
                await answer.read()
        except (EngineLost, EngineRefused):
            # Closing the connection, which comes next, ends the build too.
            return

    async def _talk(self) -> BuiltImage:
        request = self._request
        session = Session(
            self._connector, request.context, self._entries, secrets_=request.secrets, login=request.login
        )

        async def follow() -> BuiltImage | None:
            image = None
            async with open_tasks() as tasks:
                await tasks.start(session.run)
                with self._limit:
                    image = await self._follow(session)
                tasks.cancel_scope.cancel()
            return image

        def cause() -> BlacktreeError | None:
            return session.failure if isinstance(session.failure, BlacktreeError) else None

        return await image_of(self, follow, self._sink, self._finish, cause)

    async def _finish(self, ok: bool) -> None:
        for event in self.progress.end(ok=ok):
            await tell(self._sink, event)

    async def _follow(self, session: Session) -> BuiltImage:
        image = ""
        self.asked = True
        async with self._connector.open(
            "POST",
            "/build",
            parameters(self._request, self._labels, self.key, session.id),
            body=b"",
            headers=[("Content-Type", "application/x-tar")],
        ) as answer:
            async for lines in answer.batches():
                for line in lines:
                    if line.endswith(_EMPTY_TRACE):
                        continue
                    message = parsed(line)
                    if message.get("id") == _TRACE:
                        await self._trace(message.get("aux"))
                    elif message.get("id") == "moby.image.id":
                        image = str((message.get("aux") or {}).get("ID", ""))
                    elif "error" in message or "errorDetail" in message:
                        self.heard = True
                        detail = message.get("errorDetail") or {}
                        raise self._failure(str(detail.get("message") or message.get("error")), detail.get("code"))
        self.heard = True
        if not image:
            raise EngineLost("the engine ended the build without an image and without an error")
        return BuiltImage(image)

    async def _trace(self, aux: object) -> None:
        try:
            trace = wire.StatusResponse.FromString(base64.b64decode(str(aux)))
        except (DecodeError, binascii.Error):
            raise EngineLost("the engine sent a progress message that cannot be read", again=False) from None
        for event in self.progress.feed(trace):
            await tell(self._sink, event)

    def _failure(self, message: str, code: object) -> StepFailed:
        vertex = self.progress.failing(message)
        number = code if isinstance(code, int) and code > 0 else None
        return failure(message, step=vertex.name if vertex else "", code=number)


def parameters(request: BuildRequest, labels: Mapping[str, str], key: str, session: str) -> Params:
    """The query of `POST /build`. Never a tag: those are set later, under a grant."""
    found = common_parameters(request, labels)
    if request.inline_cache:
        # BuildKit reads it itself and puts its cache's index into the image's configuration (engines from 19.03 on).
        found["buildargs"] = json.dumps({"BUILDKIT_INLINE_CACHE": "1", **request.build_args})
    found |= {"version": "2", "buildid": key, "session": session, "remote": "client-session"}
    return found


def common_parameters(request: BuildRequest, labels: Mapping[str, str]) -> dict[str, str]:
    """What both builders understand."""
    found = {
        "dockerfile": request.dockerfile,
        "buildargs": json.dumps(dict(request.build_args)),
        "labels": json.dumps(dict(labels)),
        "rm": "1",
        "forcerm": "1",
    }
    if request.cache_from:
        found["cachefrom"] = json.dumps(list(request.cache_from))
    for name, value in (("target", request.target), ("platform", request.platform)):
        if value:
            found[name] = value
    for name, wanted in (("nocache", request.no_cache), ("pull", request.pull)):
        if wanted:
            found[name] = "1"
    return found


async def tell(sink: Sink, event: Event) -> None:
    """Hand one event of a build to the sink."""
    match event:
        case Started():
            await sink.step_started(event.step, event.name)
        case Finished():
            await sink.step_finished(event.step, event.name, cached=event.cached, seconds=event.seconds, ok=event.ok)
        case Output():
            await sink.output(event.step, event.stream, event.data)
        case Moved():
            await sink.progress(event.step, event.current, event.total, "bytes")
        case Clipped():
            await sink.notice(
                "output_clipped",
                f"the engine kept {event.kept} bytes of this step's output and clipped the rest {event.text}; "
                "the classic builder (--builder classic) gives complete logs",
                step=event.step,
            )
