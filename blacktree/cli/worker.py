"""`blacktree worker`: settings, the join token, then the daemon until it is told to end."""

import io
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from blacktree.cli.options import config_option, debug_option

if TYPE_CHECKING:
    from blacktree.config import Config

EPILOG = """\b
Examples:
  blacktree worker --config /etc/blacktree/worker.toml
  BLACKTREE_WORKER_ORCHESTRATOR=farm.example:5051 BLACKTREE_WORKER_SLOTS=4 blacktree worker

SIGTERM ends it: it takes nothing more, its builds get shutdown_grace_seconds, then go back to the queue.
"""


@click.command(epilog=EPILOG)
@config_option
@click.option("--id", "worker_id", metavar="NAME", help="This worker's name (worker.id).")
@click.option("--with-farm", hidden=True, type=click.Path(file_okay=False), help="End soon after this farm has.")
@debug_option
def worker(config_file: str | None, worker_id: str | None, with_farm: str | None) -> None:
    """Run a worker: it takes builds from the orchestrator and runs them on this machine's container engine."""
    import trio

    from blacktree import log
    from blacktree.config import load

    config = with_secrets_directory(with_join_token(load(config_file, flags={("worker", "id"): worker_id})[0]))
    if with_farm:
        sys.stderr = Forgiving(sys.stderr)
    log.configure(config.log)

    async def run() -> None:
        from blacktree.worker.daemon import serve

        async with trio.open_nursery() as nursery:
            if with_farm:
                nursery.start_soon(outlive, Path(with_farm), config)
            await serve(config)
            nursery.cancel_scope.cancel()

    trio.run(run, strict_exception_groups=True)


def with_join_token(config: "Config") -> "Config":
    """The settings with the join token's file: the one named, else that of an orchestrator's on this machine.

    Raises `BadRequest` if there is none.
    """
    import msgspec

    from blacktree.cli.state import JOIN_TOKEN_FILE, read_token
    from blacktree.config import default_state_directory
    from blacktree.errors import BadRequest

    if config.worker.join_token_file:
        read_token(Path(config.worker.join_token_file))
        return config
    home = {key: value for key, value in os.environ.items() if key != "STATE_DIRECTORY"}
    state = config.orchestrator.state_directory or default_state_directory(home, "orchestrator")
    path = Path(state) / JOIN_TOKEN_FILE
    if not os.access(path, os.R_OK):
        raise BadRequest(
            "a worker needs the farm's join token and none is named",
            code="join_token",
            advice=f"copy the orchestrator's file {JOIN_TOKEN_FILE} (in its state directory) here and set "
            "worker.join_token_file (or BLACKTREE_WORKER_JOIN_TOKEN_FILE)",
        )
    return msgspec.structs.replace(config, worker=msgspec.structs.replace(config.worker, join_token_file=str(path)))


def with_secrets_directory(config: "Config") -> "Config":
    """The settings with a secret store of the worker's own.

    Never systemd's credentials by default: the join token is among them, and a job could ask for it by name.
    """
    import msgspec

    from blacktree.config import default_state_directory

    if config.worker.secrets_directory:
        return config
    state = Path(config.worker.state_directory or default_state_directory(os.environ, "worker"))
    changed = msgspec.structs.replace(config.worker, secrets_directory=str(state / "secrets"))
    return msgspec.structs.replace(config, worker=changed)


class Forgiving(io.TextIOBase):
    """A stream whose reader may leave: `up` was killed, and its log's pipe with it, while builds go on here."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(BrokenPipeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(BrokenPipeError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


async def outlive(state: Path, config: "Config") -> None:
    """End this worker when its farm is gone and none has come back for a lease: nobody else would end it."""
    import structlog
    import trio

    from blacktree.cli.state import is_locked

    alone_since: float | None = None
    patience = config.orchestrator.lease_seconds
    while alone_since is None or trio.current_time() - alone_since < patience:
        await trio.sleep(min(2.0, patience / 3))
        if is_locked(state):
            alone_since = None
        elif alone_since is None:
            alone_since = trio.current_time()
    structlog.get_logger().warning("the farm is gone: ending", state=str(state))
    os.kill(os.getpid(), signal.SIGTERM)
    await trio.sleep(config.worker.shutdown_grace_seconds + 15)
    os.kill(os.getpid(), signal.SIGKILL)
