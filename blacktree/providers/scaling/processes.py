"""Workers as processes on the orchestrator's own machine: `blacktree worker` children.

They end with the farm: in order when it ends in order, by themselves (`--with-farm`) when it was killed and has not
come back within a lease; one that comes back earlier finds them by their command line and goes on with them.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import msgspec
import structlog
import trio

from blacktree.concurrency.oneself import own_command, own_python_path
from blacktree.concurrency.threads import in_thread
from blacktree.errors import BadRequest, StepFailed
from blacktree.providers.scaling import kin
from blacktree.providers.scaling.options import check_environment, on_this_machine, read_options, setting_variables
from blacktree.scaling import Machine, WorkerProvider, WorkerProviderSettings

log = structlog.get_logger()

END_SECONDS = 40.0
LEAVE_SECONDS = 5.0
LAST_SECONDS = 6.0
EXEC_SECONDS = 2.0

_NOT_PASSED_ON = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "STATE_DIRECTORY",
    "MQ_URL",
    "WORKER_ID",
    "ORCHESTRATOR_ADDR",
    "ORCHESTRATOR_GRPC_PORT",
    "BLACKTREE_TOKEN",
    "BLACKTREE_SERVER",
)


class ProcessOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[scaling.pools.NAME.options]` with `provider = "processes"`. Empty addresses: what fits this machine."""

    config_file: str = ""
    environment: dict[str, str] = {}
    orchestrator: str = ""
    listen: str = ""


def open_provider(settings: WorkerProviderSettings) -> AbstractAsyncContextManager[WorkerProvider]:
    """See `blacktree.scaling`. Raises `BadRequest` for bad options."""
    options = read_options(settings, ProcessOptions)
    check_environment(options.environment, settings)
    if options.config_file and not os.access(options.config_file, os.R_OK):
        path = f"scaling.pools.{settings.pool}.options.config_file"
        raise BadRequest(f"{path}: cannot read {options.config_file}", path=path, code="invalid_config")
    return _opened(settings, options)


@asynccontextmanager
async def _opened(settings: WorkerProviderSettings, options: ProcessOptions) -> AsyncIterator[WorkerProvider]:
    async with trio.open_nursery() as nursery:
        provider = Processes(settings, options, nursery)
        try:
            yield provider
        finally:
            with trio.move_on_after(LAST_SECONDS, shield=True) as last:
                await provider.end_all(grace_seconds=1.0)
            if last.cancelled_caught:
                log.error("worker processes did not end in time", pool=settings.pool)
            nursery.cancel_scope.cancel()


class Processes:
    """See `WorkerProvider`."""

    def __init__(self, settings: WorkerProviderSettings, options: ProcessOptions, nursery: trio.Nursery) -> None:
        self._settings = settings
        self._options = options
        self._nursery = nursery
        self._state = settings.state_directory
        self._homes = Path(settings.state_directory) / "scaling"
        self._codes: dict[str, int] = {}

    async def start(self, worker_id: str) -> None:
        """See `WorkerProvider`."""
        if worker_id in await self._pids():
            return
        home = self._homes / worker_id
        arguments = kin.arguments(worker_id, self._state)
        if self._options.config_file:
            arguments += ["--config", self._options.config_file]
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            process = await trio.lowlevel.open_process(
                [*own_command(), *arguments],
                env=self._environment(home, os.environ),
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                stderr=sys.stderr.fileno(),
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise StepFailed(
                f"cannot start a worker process: {error.strerror}: {error.filename}",
                code="worker_not_started",
                again=True,
            ) from None
        self._nursery.start_soon(self._reap, worker_id, process, name=f"reaper of {worker_id}")
        # For a moment of its exec a process shows no command line, and would not be found.
        with trio.move_on_after(EXEC_SECONDS, shield=True):
            while process.returncode is None and kin.told_id(process.pid, self._state) != worker_id:
                await trio.sleep(0.001)

    async def _reap(self, worker_id: str, process: trio.Process) -> None:
        self._codes[worker_id] = await process.wait()

    def _environment(self, home: Path, environ: Mapping[str, str]) -> dict[str, str]:
        settings, options = self._settings, self._options
        # The orchestrator's settings may hold the broker's password: none of a worker's business.
        kept = {
            name: value
            for name, value in environ.items()
            if name not in _NOT_PASSED_ON and not name.startswith(("BLACKTREE_ORCHESTRATOR_", "BLACKTREE_SCALING_"))
        }
        door = options.orchestrator or on_this_machine(settings.orchestrator)
        own = f"{Path(door.removeprefix('unix:')).parent}/{home.name[-8:]}.sock"
        listen = options.listen or (f"unix:{own}" if door.startswith("unix:") else "127.0.0.1:0")
        ours = setting_variables(
            {
                "orchestrator": door,
                "listen": listen,
                "pool": settings.pool,
                "slots": settings.slots,
                "state_directory": home,
                "join_token_file": settings.join_token_file,
            }
        )
        kept.pop("BLACKTREE_WORKER_ADVERTISE", None)
        lease = {"BLACKTREE_ORCHESTRATOR_LEASE_SECONDS": f"{settings.lease_seconds:g}"}
        return kept | options.environment | ours | lease | {"PYTHONPATH": own_python_path(environ)}

    async def machines(self) -> list[Machine]:
        """See `WorkerProvider`."""
        pids = await self._pids()
        left = set(await in_thread(self._directories)) - set(pids)
        running = [Machine(id=worker_id, running=True) for worker_id in sorted(pids)]
        return running + [Machine(id=each, running=False, detail=self._ending(each)) for each in sorted(left)]

    def _ending(self, worker_id: str) -> str:
        code = self._codes.get(worker_id)
        return "" if code is None else f"exit code {code}" if code >= 0 else f"killed by signal {-code}"

    async def stop(self, worker_id: str) -> None:
        """See `WorkerProvider`."""
        await self._end(worker_id, END_SECONDS)
        home = self._homes / worker_id
        try:
            await in_thread(lambda: shutil.rmtree(home))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StepFailed(f"cannot remove {home}: {error.strerror}", code="worker_not_removed", again=True) from None
        self._codes.pop(worker_id, None)

    async def _end(self, worker_id: str, grace_seconds: float) -> None:
        pid = (await self._pids()).get(worker_id)
        if pid is not None:
            await kin.end(pid, self._state, worker_id, grace_seconds)

    async def leave(self) -> None:
        """See `WorkerProvider`."""
        await self.end_all(grace_seconds=LEAVE_SECONDS)
        for worker_id in await in_thread(self._directories):
            await self.stop(worker_id)

    async def end_all(self, *, grace_seconds: float) -> None:
        """End every process, together."""
        async with trio.open_nursery() as nursery:
            for worker_id in await self._pids():
                nursery.start_soon(self._end, worker_id, grace_seconds)

    async def _pids(self) -> dict[str, int]:
        return await in_thread(lambda: kin.find(self._state, self._settings.pool))

    def _directories(self) -> list[str]:
        try:
            return [name for name in os.listdir(self._homes) if kin.belongs(name, self._settings.pool)]
        except FileNotFoundError:
            return []
