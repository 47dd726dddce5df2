"""A provider from outside the package: the scripted one, and builds that print the wall time on every line.

Found by entry point like any other; `installed` makes the directory that names it. Build argument `STAMPS`: `[rate,
count, bytes]`: so many lines a second, so many in all, each padded to so many bytes.
"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from blacktree.providers.base import BuildRequest, BuiltImage, ProviderSettings, Sink
from blacktree.providers.scripted import ScriptedProvider

NAME = "bench-stamping"


class StampingProvider(ScriptedProvider):
    """`@<microseconds since 1970>@` begins each line."""

    async def build(self, request: BuildRequest, sink: Sink) -> BuiltImage:
        if "STAMPS" in request.build_args:
            rate, count, size = json.loads(request.build_args["STAMPS"])
            await sink.step_started("stamps", "stamps")
            began = trio.current_time()
            for number in range(count):
                await trio.sleep_until(began + number / rate)
                line = f"@{time.time_ns() // 1000}@".ljust(size, "x")
                await sink.output("stamps", "stdout", line.encode() + b"\n")
            await sink.step_finished("stamps", "stamps", cached=False, seconds=count / rate, ok=True)
        return await super().build(request, sink)


@asynccontextmanager
async def open_provider(settings: ProviderSettings) -> AsyncIterator[StampingProvider]:
    """The entry point."""
    yield StampingProvider(settings)


def installed(directory: Path) -> Path:
    """Make the provider known to Python programs that have `directory` on their path."""
    about = directory / "blacktree_bench_stamping-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: blacktree-bench-stamping\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[blacktree.providers]\n{NAME} = {__name__}:open_provider\n")
    return directory
