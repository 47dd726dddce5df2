"""The peer: Celery with results (rpc), `acks_late`, prefork. `python -m tests.bench.celery_peer jobs|rate …` publishes.

The broker's address comes in `BENCH_BROKER`.
"""

import json
import os
import sys
import time
from typing import Any

from celery import Celery

app = Celery("bench", broker=os.environ.get("BENCH_BROKER", ""), backend="rpc://")
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    task_default_queue="bench.celery",
)
WAIT_SECONDS = 90.0


@app.task(name="bench.noop")
def noop() -> float:
    """When it ran, by the wall clock."""
    return time.time()


def say(**values: Any) -> None:
    """One line of JSON for whoever started us."""
    print(json.dumps(values), flush=True)


def _jobs(count: int) -> None:
    """Publish all, say so, collect every result."""
    began = time.time()
    handed = [noop.delay() for _ in range(count)]
    say(published=time.time() - began)
    started = [result.get(timeout=WAIT_SECONDS) for result in handed]
    say(all=time.time() - began, first=min(started), last=max(started))


def _rate(rate: float, count: int) -> None:
    """Publish in an open loop; say how long each took to run."""
    noop.delay().get(timeout=WAIT_SECONDS)
    began = time.time()
    handed = []
    for number in range(count):
        time.sleep(max(0.0, began + number / rate - time.time()))
        handed.append((time.time(), noop.delay()))
    say(latencies=[result.get(timeout=WAIT_SECONDS) - sent for sent, result in handed])


if __name__ == "__main__":
    if sys.argv[1] == "jobs":
        _jobs(int(sys.argv[2]))
    else:
        _rate(float(sys.argv[2]), int(sys.argv[3]))
