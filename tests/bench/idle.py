"""The farm idle as `blacktree up` on the container engine: memory of all its processes, and CPU."""

import os
import time
from collections.abc import Iterator

from tests.bench.bench import Bench, NotHere
from tests.bench.figure import Figure
from tests.bench.proc import cpu_seconds, proportional_mib, resident_mib, tree
from tests.parts.engine import engine
from tests.parts.whole_farm import open_whole_farm

MEMORY_MIB, CPU_PERCENT = 160.0, 3.0


def measure(bench: Bench) -> Iterator[Figure]:
    """Some seconds after its start, over some more."""
    if os.geteuid() != 0 and not os.access("/var/run/docker.sock", os.R_OK | os.W_OK):
        raise NotHere("no container engine answers")
    home = bench.new_directory("idle")
    with engine() as socket:
        settings = {"PROVIDER": "docker", "STEPS": "sync,build,tag", "ENGINE": socket}
        with open_whole_farm(home, **{f"BLACKTREE_WORKER_{key}": value for key, value in settings.items()}) as farm:
            farm.start()
            assert farm.process is not None
            time.sleep(bench.size(5, 1))
            pids = tree(farm.process.pid)
            seconds = bench.size(10, 2)
            before, began = cpu_seconds(*pids), time.monotonic()
            time.sleep(seconds)
            cpu = (cpu_seconds(*pids) - before) / (time.monotonic() - began) * 100
            memory = proportional_mib(pids)
            each = {str(pid): round(resident_mib(pid), 1) for pid in pids}
    yield Figure(
        row="idle",
        name=f"`up` idle, {len(pids)} processes, proportional memory",
        value=memory,
        unit="MiB",
        target=f"under {MEMORY_MIB:.0f} MiB",
        reached=memory < MEMORY_MIB,
        details={"resident_mib": each},
    )
    yield Figure(
        row="idle",
        name=f"`up` idle, CPU over {seconds} s",
        value=cpu,
        unit="% of a core",
        target=f"under {CPU_PERCENT:.0f} %",
        reached=cpu < CPU_PERCENT,
        note="the kernel counts in steps of 10 ms",
    )
