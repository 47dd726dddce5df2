"""BuildKit's trace as steps: pure, one message in, what to tell the sink out."""

import re
from collections.abc import Iterator

import msgspec

from blacktree.providers.docker.generated import buildkit_pb2 as wire

_CLIPPED = re.compile(rb"\[output clipped, log limit [^\]\n]*\]")


class Started(msgspec.Struct, frozen=True):
    """A step began."""

    step: str
    name: str


class Finished(msgspec.Struct, frozen=True):
    """A step ended or was cached."""

    step: str
    name: str
    cached: bool
    seconds: float
    ok: bool


class Output(msgspec.Struct, frozen=True):
    """What a step printed."""

    step: str
    stream: str
    data: bytes


class Moved(msgspec.Struct, frozen=True):
    """How far a step is, bytes."""

    step: str
    current: int
    total: int


class Clipped(msgspec.Struct, frozen=True):
    """The engine has thrown away a part of this step's output; `text` is its own line, `kept` bytes came before."""

    step: str
    text: str
    kept: int


Event = Started | Finished | Output | Moved | Clipped


class Vertex:
    """One vertex of the build's graph, as far as it is known."""

    def __init__(self, digest: str) -> None:
        # Short enough for a person, long enough never to clash within one build.
        self.step = digest.partition(":")[2][:12] or digest[:64]
        self.digest = digest
        self.name = ""
        self.inputs: list[str] = []
        self.cached = False
        self.error = ""
        self.begun: float | None = None
        self.ended: float | None = None
        self.told_start = False
        self.told_end = False
        self.output_bytes = 0
        self.clip_told = False
        self.moved: dict[str, tuple[int, int]] = {}

    @property
    def running(self) -> bool:
        """Whether the engine has begun it and not said that it ended."""
        return self.begun is not None and self.ended is None


class Progress:
    """Merges the trace's repeated vertexes by digest and tells each step's start and end once."""

    def __init__(self) -> None:
        self.vertexes: dict[str, Vertex] = {}

    def feed(self, trace: wire.StatusResponse) -> Iterator[Event]:
        """What a trace message changes."""
        for seen in trace.vertexes:
            yield from self._vertex(seen)
        for status in trace.statuses:
            yield from self._status(status)
        for log in trace.logs:
            yield from self._log(log)

    def end(self, *, ok: bool) -> Iterator[Event]:
        """The stream has ended: whatever is still open ends with it."""
        for vertex in self.vertexes.values():
            if vertex.told_end or vertex.begun is None:
                continue
            yield from self._finish(vertex, ok=not vertex.error and (ok or vertex.ended is not None))

    def failing(self, message: str) -> Vertex | None:
        """The vertex that a build's last message is about: not one that was only cancelled along with it."""
        failed = [vertex for vertex in self.vertexes.values() if vertex.error]
        named = [vertex for vertex in failed if vertex.error in message]
        own = [vertex for vertex in failed if "context canceled" not in vertex.error]
        return next(iter(named or own or failed), None)

    def running(self) -> list[Vertex]:
        """The vertexes under way."""
        return [vertex for vertex in self.vertexes.values() if vertex.running]

    def _vertex(self, seen: wire.Vertex) -> Iterator[Event]:
        vertex = self._known(seen.digest)
        vertex.name = seen.name or vertex.name
        vertex.inputs = list(seen.inputs) or vertex.inputs
        vertex.cached = vertex.cached or seen.cached
        vertex.error = seen.error or vertex.error
        if seen.HasField("started"):
            begun = seen.started.seconds + seen.started.nanos / 1e9
            vertex.begun = begun if vertex.begun is None else min(vertex.begun, begun)
            vertex.ended = None
            yield from self._inputs_done(vertex)
            if not seen.cached:
                yield from self._start(vertex)
        if seen.HasField("completed"):
            vertex.ended = seen.completed.seconds + seen.completed.nanos / 1e9
            # Sources (the context, FROM) begin and end again, first for their key, then for their content: they are
            # done when something builds on them.
            if vertex.error or not _comes_again(vertex.name):
                yield from self._finish(vertex, ok=not vertex.error)

    def _inputs_done(self, vertex: Vertex) -> Iterator[Event]:
        for digest in vertex.inputs:
            source = self.vertexes.get(digest)
            if source is not None and source.ended is not None and not source.told_end:
                yield from self._finish(source, ok=not source.error)

    def _status(self, status: wire.VertexStatus) -> Iterator[Event]:
        if status.current <= 0 and status.total <= 0:
            return
        vertex = self._known(status.vertex)
        if vertex.told_end:
            return
        yield from self._start(vertex)
        vertex.moved[status.id] = (status.current, status.total)
        current = sum(each[0] for each in vertex.moved.values())
        total = sum(max(each) for each in vertex.moved.values())
        yield Moved(vertex.step, current, total)

    def _log(self, log: wire.VertexLog) -> Iterator[Event]:
        vertex = self._known(log.vertex)
        yield from self._start(vertex)
        vertex.output_bytes += len(log.msg)
        yield Output(vertex.step, "stderr" if log.stream == 2 else "stdout", log.msg)
        if not vertex.clip_told and (found := _CLIPPED.search(log.msg)):
            vertex.clip_told = True
            kept = vertex.output_bytes - (len(log.msg) - found.start())
            yield Clipped(vertex.step, found[0].decode("utf-8", "replace"), kept)

    def _known(self, digest: str) -> Vertex:
        if digest not in self.vertexes:
            self.vertexes[digest] = Vertex(digest)
        return self.vertexes[digest]

    def _start(self, vertex: Vertex) -> Iterator[Event]:
        if not vertex.told_start and not vertex.told_end:
            vertex.told_start = True
            yield Started(vertex.step, vertex.name or vertex.step)

    def _finish(self, vertex: Vertex, *, ok: bool) -> Iterator[Event]:
        if vertex.told_end:
            return
        vertex.told_end = True
        if vertex.begun is not None and vertex.ended is not None:
            seconds = max(0.0, vertex.ended - vertex.begun)
        else:
            seconds = 0.0
        yield Finished(vertex.step, vertex.name or vertex.step, vertex.cached, seconds, ok)


def _comes_again(name: str) -> bool:
    return name.startswith("[internal] load build context") or "] FROM " in name
