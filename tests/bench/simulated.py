"""Registered workers that take no jobs, many in one process.

`python -m tests.bench.simulated ADDRESS FIRST COUNT DIRECTORY`: numbered from FIRST, their sockets in DIRECTORY.
Real gRPC on both sides and a heartbeat each; the join token comes in `BENCH_JOIN_TOKEN`. Says `{}` when all are in.
"""

import os
import sys
from functools import partial
from pathlib import Path

import trio

from blacktree.concurrency.island import open_island
from tests.parts.toy_worker import ToyWorker


async def main(address: str, first: int, count: int, directory: Path) -> None:
    """Runs until it is ended."""
    token = os.environ["BENCH_JOIN_TOKEN"]
    async with open_island(), trio.open_nursery() as nursery:
        for number in range(first, first + count):
            worker = ToyWorker(f"simulated-{number}", slots=2)
            worker.refusal = "it is simulated"
            await nursery.start(partial(worker.run, address, token, directory))
        print("{}", flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
