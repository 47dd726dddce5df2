"""`python -m tests.parts.trap orchestrator|worker …`: the program itself, which dies by SIGKILL at a chosen place.

The place is what the file named by `TRAP_FILE` says at that moment; without the file nothing happens. Striking removes
it, so that one arming is one death. Places of the orchestrator: `before-commit:STATE` (nothing written),
`in-commit:STATE` (segments synced, rows written, no COMMIT), `after-commit:STATE` (nobody told), and `before-…` and
`after-…` of `publish`, `clear` (the outbox row), `settle` (the delivery), `run-job`, `stop-job`, `take-lines`,
`take-result`, `publish-status`, `change-deployment`, `tell-deployment`, `take-output`, `order-replicas`,
`hear-replicas`, `keep-secret`. Of the worker: `accept`, `output`, `tell-lines`, `tell-result`, and on a real
engine `build` (the whole of it) and `tag`. A number behind the place is the process that dies instead, such as that
engine.
"""

import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from blacktree.event import Lines

MODULE = "tests.parts.trap"


def strike(place: str) -> None:
    """Die here, if this is the place; or see another process die, and go on."""
    file = Path(os.environ["TRAP_FILE"])
    try:
        where, _, victim = file.read_text().partition(" ")
        if where != place:
            return
        file.unlink()
    except FileNotFoundError:
        return
    if victim:
        os.kill(int(victim), signal.SIGKILL)
        with suppress(OSError):  # gone, and somebody has heard of it already
            while Path(f"/proc/{victim}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                time.sleep(0.01)
        return
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # another thread may hear of it first


def around(owner: Any, name: str, place: str, when: Callable[..., bool] = lambda *_: True) -> None:
    """Set a trap before and after each call of this asynchronous method whose arguments fit."""
    original = getattr(owner, name)

    async def wrapped(*args: Any, **keys: Any) -> Any:
        fits = when(*args)
        if fits:
            strike(f"before-{place}")
        result = await original(*args, **keys)
        if fits:
            strike(f"after-{place}")
        return result

    setattr(owner, name, wrapped)


def around_commits() -> None:
    """Traps within the store's transaction, by the state that a job enters in it."""
    from blacktree.job import JobState
    from blacktree.storage.writer import Item, Writer

    write, commit = Writer._write, Writer._commit
    entered: set[JobState] = set()

    def _write(self: Writer) -> None:
        for entry in self._touched.values():
            if entry.moved or entry.job.state is JobState.QUEUED:
                entered.add(entry.job.state)
        for state in entered:
            strike(f"before-commit:{state}")
        write(self)
        for state in entered:
            strike(f"in-commit:{state}")

    def _commit(self: Writer, items: list[Item]) -> list[Any]:
        entered.clear()
        results = commit(self, items)
        for state in entered:
            strike(f"after-commit:{state}")
        return results

    Writer._write = _write
    Writer._commit = _commit


def has_lines(_: Any, report: Any) -> bool:
    batches = [batch for each in report.attempts for batch in each.batches]
    return any(type(record) is Lines for batch in batches for record in batch.records)


def has_outcome(_: Any, report: Any) -> bool:
    return any(batch.outcome is not None for each in report.attempts for batch in each.batches)


def in_the_orchestrator() -> None:
    """Every place of the orchestrator."""
    from blacktree.orchestrator import jobs
    from blacktree.orchestrator.deploymentrecord import DeploymentRecord
    from blacktree.orchestrator.registration import RegistrationDesk
    from blacktree.orchestrator.relay import Relay
    from blacktree.orchestrator.runlogs import RuntimeLogs
    from blacktree.orchestrator.vault import Vault
    from blacktree.rpc.proxy import WorkerProxy
    from blacktree.storage.sqlite import SqliteStore

    around_commits()
    around(Relay, "_publish", "publish", lambda _, group: any(row.kind == "ticket" for row in group))
    around(Relay, "_publish", "publish-status", lambda _, group: any(row.kind == "status" for row in group))
    around(SqliteStore, "published", "clear")
    around(jobs, "_settle", "settle")
    around(WorkerProxy, "run_jobs", "run-job")
    around(WorkerProxy, "stop_jobs", "stop-job")
    around(DeploymentRecord, "change", "change-deployment")
    around(RuntimeLogs, "tell", "tell-deployment")
    around(RuntimeLogs, "take", "take-output")
    around(WorkerProxy, "apply_replicas", "order-replicas")
    around(RegistrationDesk, "report_replicas", "hear-replicas")
    around(RegistrationDesk, "report", "take-lines", has_lines)
    around(RegistrationDesk, "report", "take-result", has_outcome)
    around(Vault, "_revise", "keep-secret")


def in_the_worker() -> None:
    """Every place of the worker."""
    from blacktree.providers.docker.provider import DockerProvider
    from blacktree.rpc.proxy import OrchestratorProxy
    from blacktree.worker.intake import Intake
    from blacktree.worker.report import AttemptSink

    around(DockerProvider, "build", "build")
    around(DockerProvider, "tag", "tag")
    around(Intake, "run_jobs", "accept")
    around(AttemptSink, "output", "output")
    around(OrchestratorProxy, "report", "tell-lines", has_lines)
    around(OrchestratorProxy, "report", "tell-result", has_outcome)


def dump(*_: object) -> None:
    """What every task waits for, on stderr: the answer to SIGUSR1, for whoever wants to know why nothing goes on."""
    for task in [each for each in gc.get_objects() if type(each) is trio.lowlevel.Task]:
        where = [f"{Path(frame.f_code.co_filename).name}:{line}" for frame, line in task.iter_await_frames()]
        print(f"task {task.name}: {' '.join(where)}", file=sys.stderr)


if __name__ == "__main__":
    from blacktree.cli.main import main

    signal.signal(signal.SIGUSR1, dump)

    (in_the_worker if sys.argv[1] == "worker" else in_the_orchestrator)()
    main()
