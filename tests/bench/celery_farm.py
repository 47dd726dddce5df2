"""Celery's worker and publisher as processes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.bench.bench import Bench, environment, module, running
from tests.parts.rabbit import RabbitNode


class CeleryFarm:
    """A prefork worker with two processes, and publishers."""

    def __init__(self, bench: Bench, node: RabbitNode) -> None:
        self._directory = bench.new_directory("celery")
        self._environ = environment(BENCH_BROKER=node.url.removesuffix("/") + "//", C_FORCE_ROOT="1")

    @contextmanager
    def worker(self) -> Iterator[None]:
        """It takes tasks once it is up; nothing waits for that here."""
        command = [sys.executable, "-m", "celery", "-A", "tests.bench.celery_peer", "worker", "--pool=prefork"]
        command += ["--concurrency=2", "--loglevel=warning", "--without-gossip", "--without-mingle"]
        with running(command, self._environ, self._directory / "worker.log"):
            yield

    @contextmanager
    def publisher(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """`jobs COUNT` or `rate RATE COUNT`; read what it says with `heard`."""
        command = module("celery_peer", *arguments)
        log = self._directory / "publisher.log"
        with running(command, self._environ, log, stdout=subprocess.PIPE) as process:
            yield process


def heard(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line of JSON that a process of the bench says."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a process of the bench ended without a word, exit code {process.wait(10)}")
    found: dict[str, Any] = json.loads(line)
    return found
