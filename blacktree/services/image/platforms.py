"""A sink for one of several platforms: its steps bear the platform's name, so that no two builds share one."""

from blacktree.providers.base import Sink

STEP_CHARACTERS = 64


class PlatformSink:
    """`Sink` over another."""

    def __init__(self, sink: Sink, platform: str) -> None:
        self._sink = sink
        self._platform = platform
        self._prefix = platform.partition("/")[2].replace("/", "-") or platform

    def _step(self, step: str) -> str:
        return f"{self._prefix}.{step}"[:STEP_CHARACTERS] if step else step

    async def step_started(self, step: str, name: str) -> None:
        await self._sink.step_started(self._step(step), f"[{self._platform}] {name}")

    async def step_finished(self, step: str, name: str, *, cached: bool, seconds: float, ok: bool) -> None:
        name = f"[{self._platform}] {name}"
        await self._sink.step_finished(self._step(step), name, cached=cached, seconds=seconds, ok=ok)

    async def output(self, step: str, stream: str, data: bytes) -> None:
        await self._sink.output(self._step(step), stream, data)

    async def progress(self, step: str, current: int, total: int, unit: str) -> None:
        await self._sink.progress(self._step(step), current, total, unit)

    async def notice(self, code: str, text: str, *, step: str = "") -> None:
        await self._sink.notice(code, f"[{self._platform}] {text}", step=self._step(step))
