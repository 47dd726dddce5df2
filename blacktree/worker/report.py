"""The sink of one attempt: bytes become masked lines, lines become records, records go to the outbox."""

from collections import deque

import trio

from blacktree.clock import now
from blacktree.event import Lines, Notice, Progress, StepFinished, StepStarted
from blacktree.services.core.lines import LineSplitter
from blacktree.services.core.masking import Masker
from blacktree.worker.attempttrace import AttemptTrace
from blacktree.worker.outbox import Outbox

PIECE_BYTES = 64 * 1024
PROGRESS_SECONDS = 0.5
STEP_CHARACTERS = 64
NAME_CHARACTERS = 1024
NOTICE_CHARACTERS = 16 * 1024
TAIL_LINES = 20
TAIL_CHARACTERS = 64 * 1024


class Tail:
    """The last lines of what passed, cheaply: texts are kept whole and only cut when somebody asks."""

    def __init__(self) -> None:
        self._texts: deque[tuple[str, str]] = deque()
        self._characters = 0
        self._names: dict[str, str] = {}

    def begun(self, step: str, name: str) -> None:
        """This step has this name: a failure may know it by that alone."""
        self._names[step] = name

    def add(self, step: str, text: str) -> None:
        text = text[-TAIL_CHARACTERS:]
        self._texts.append((step, text))
        self._characters += len(text)
        while self._characters > 2 * TAIL_CHARACTERS and len(self._texts) > 1:
            self._characters -= len(self._texts.popleft()[1])

    def lines(self, step: str = "") -> list[str]:
        """The last 20 lines of this step (its own word or its name), or of all when it printed nothing."""
        # One of several platforms has the platform before its name.
        named = {each for each, name in self._names.items() if name == step or name.endswith(f"] {step}")}
        own = [text for of, text in self._texts if of == step or of in named]
        joined = "".join(own or [text for _, text in self._texts])
        return joined.splitlines()[-TAIL_LINES:]


class _Stream:
    """One stream of one step: masked first, split into lines after, so that no secret hides behind a newline."""

    def __init__(self, masker: Masker) -> None:
        self._mask = masker.stream()
        self._lines = LineSplitter()

    def feed(self, data: bytes) -> list[tuple[str, bool]]:
        return self._lines.feed(self._mask.feed(data))

    def finish(self) -> list[tuple[str, bool]]:
        return self._lines.feed(self._mask.finish()) + self._lines.finish()


class AttemptSink:
    """`Sink` for one attempt. Waits when the outbox has no room: then the build's output is read no further."""

    def __init__(self, outbox: Outbox, attempt: int, trace: AttemptTrace | None = None) -> None:
        self._trace = trace
        self._outbox = outbox
        self._attempt = attempt
        self._masker = Masker(())
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._progressed: dict[str, float] = {}
        self.tail = Tail()

    def hide(self, masker: Masker) -> None:
        """From here on these values are masked. To be called before anything is printed."""
        self._masker = masker

    def masked(self, text: str) -> str:
        return self._masker.mask_text(text)

    async def step_started(self, step: str, name: str) -> None:
        await self._room()
        self.tail.begun(step[:STEP_CHARACTERS], name)
        name = self.masked(name)[:NAME_CHARACTERS]
        if self._trace is not None:
            self._trace.step_started(step[:STEP_CHARACTERS], name)
        self._outbox.add(StepStarted(time=now(), attempt=self._attempt, step=step[:STEP_CHARACTERS], name=name))

    async def step_finished(self, step: str, name: str, *, cached: bool, seconds: float, ok: bool) -> None:
        await self._room()
        step = step[:STEP_CHARACTERS]
        self._flush(step)
        self._progressed.pop(step, None)
        if self._trace is not None:
            self._trace.step_finished(step, self.masked(name)[:NAME_CHARACTERS], cached=cached, ok=ok)
        self._outbox.add(
            StepFinished(
                time=now(),
                attempt=self._attempt,
                step=step,
                name=self.masked(name)[:NAME_CHARACTERS],
                cached=cached,
                seconds=seconds,
                ok=ok,
            )
        )

    async def output(self, step: str, stream: str, data: bytes) -> None:
        step = step[:STEP_CHARACTERS]
        key = (step, stream)
        pipe = self._streams.get(key)
        if pipe is None:
            pipe = self._streams[key] = _Stream(self._masker)
        for start in range(0, len(data), PIECE_BYTES):
            await self._room()
            self._put(step, stream, pipe.feed(data[start : start + PIECE_BYTES]))

    async def progress(self, step: str, current: int, total: int, unit: str) -> None:
        await self._room()
        step = step[:STEP_CHARACTERS]
        moment = trio.current_time()
        if moment < self._progressed.get(step, -PROGRESS_SECONDS) + PROGRESS_SECONDS:
            return
        self._progressed[step] = moment
        self._outbox.add(
            Progress(time=now(), attempt=self._attempt, step=step, current=current, total=total, unit=unit[:16])
        )

    async def notice(self, code: str, text: str, *, step: str = "") -> None:
        await self._room()
        self.notice_nowait(code, text, step=step)

    def notice_nowait(self, code: str, text: str, *, step: str = "") -> None:
        """As `notice`, at an attempt's end, where nothing may wait any more."""
        text = self.masked(text)[:NOTICE_CHARACTERS]
        self._outbox.add(
            Notice(time=now(), attempt=self._attempt, code=code, text=text, step=step[:STEP_CHARACTERS]), len(text)
        )

    async def resolved(self, commit: str) -> None:
        """The commit is on record once this returns."""
        await self._outbox.stored(self._outbox.put_commit(commit))

    def flush(self) -> None:
        """Every unfinished line of every stream, as it is."""
        for step, _ in list(self._streams):
            self._flush(step)

    def _flush(self, step: str) -> None:
        for key in [key for key in self._streams if key[0] == step]:
            self._put(step, key[1], self._streams.pop(key).finish())

    def _put(self, step: str, stream: str, texts: list[tuple[str, bool]]) -> None:
        for text, partial in texts:
            size = len(text) if text.isascii() else len(text.encode())
            if partial:
                self._outbox.add(
                    Lines(time=now(), attempt=self._attempt, step=step, stream=stream, text=text, partial=True), size
                )
            else:
                self._outbox.add_lines(now(), step, stream, text, size)
            self.tail.add(step, text)

    async def _room(self) -> None:
        await trio.lowlevel.checkpoint()
        await self._outbox.room()
