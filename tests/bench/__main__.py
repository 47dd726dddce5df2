"""`python -m tests.bench`: measure, print the table, save the JSON."""

import argparse
import json
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import FrameType

import trio

from tests.bench import machine
from tests.bench.bench import Bench, NotHere
from tests.bench.figure import Failed, Figure, as_json, table

# In this order; each is a module with `measure(bench)`, and may take so many seconds.
ROWS = {
    "jobs": 150.0,
    "latency": 120.0,
    "build": 240.0,
    "push": 700.0,
    "output": 180.0,
    "readers": 150.0,
    "api": 60.0,
    "cancel": 240.0,
    "switch": 240.0,
    "shutdown": 180.0,
    "memory": 180.0,
    "scale": 120.0,
    "webhooks": 150.0,
    "viewer": 600.0,
    "longlog": 600.0,
    "idle": 60.0,
}

Measure = Callable[[Bench], Iterator[Figure]]


def main() -> int:
    """0 if every row that was asked for has been measured, reached or not; 1 otherwise."""
    options = _parser().parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # A thousand readers are a thousand files; the daemons inherit this.
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard > 0 else 65536, hard))
    signal.signal(signal.SIGALRM, _too_long)
    facts = machine.facts()
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)
    figures: list[Figure] = []
    failures: list[Failed] = []
    loads: dict[str, float] = {}
    stolen: dict[str, float] = {}
    began = time.monotonic()
    with Bench(quick=options.quick, minutes=options.minutes) as bench:
        for row in options.only or ROWS:
            loads[row] = round(machine.load(), 2)
            bench.say(f"{row} (load {loads[row]})")
            before = machine.processor_time()
            failure = _measure(row, bench, figures)
            stolen[row] = round(machine.stolen(before, machine.processor_time()), 3)
            if failure is not None:
                bench.say(f"{row}: not measured: {failure.reason}")
                failures.append(failure)
    seconds = round(time.monotonic() - began)
    print(f"\n{table(figures, failures)}")
    print(
        f"\n{seconds} s{', quick: sizes too small for figures to quote' if options.quick else ''}; load average before"
    )
    print("each row (other work on the machine counts): " + ", ".join(f"{row} {load}" for row, load in loads.items()))
    print(
        "taken by other guests of the host meanwhile: " + ", ".join(f"{row} {part:.0%}" for row, part in stolen.items())
    )
    document = {
        "machine": facts,
        "quick": options.quick,
        "seconds": seconds,
        "load": loads,
        "stolen": stolen,
        "figures": [as_json(figure) for figure in figures],
        "failures": [vars(failure) for failure in failures],
    }
    options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(f"saved in {options.json}")
    return 1 if failures else 0


def _measure(row: str, bench: Bench, figures: list[Figure]) -> Failed | None:
    measure: Measure = import_module(f"tests.bench.{row}").measure
    limit = ROWS[row] + (60 * bench.minutes if row == "viewer" else 0)
    bench.limit(limit)
    # For what runs outside of Trio. Inside, a signal's exception would break the loop; there `Bench.run` is the limit.
    signal.setitimer(signal.ITIMER_REAL, limit + 5)
    try:
        for figure in measure(bench):
            figures.append(figure)
            bench.say(f"  {figure.name}: {figure.value:.5g} {figure.unit}")
    except (Exception, BaseExceptionGroup) as error:  # the edge of one row: the others go on
        first: BaseException = error
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        if not isinstance(first, Exception):
            raise
        kind = "" if isinstance(first, NotHere) else f"{type(first).__name__}: "
        if isinstance(first, trio.TooSlowError):
            return Failed(row, f"it took more than {limit:.0f} s")
        return Failed(row, f"{kind}{' '.join(str(first).split())[-1500:]}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


def _too_long(number: int, frame: FrameType | None) -> None:
    raise trio.TooSlowError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bin/bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(ROWS), help="this row; may be given several times")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it works")
    parser.add_argument(
        "--minutes", type=float, metavar="N", help="how long the viewer follows a log (default: 10, quick 0.2)"
    )
    parser.add_argument("--json", type=Path, default=Path("bench.json"), metavar="FILE", help="default: bench.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
