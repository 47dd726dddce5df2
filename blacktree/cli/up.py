"""`blacktree up`: the whole farm on one machine, in one process tree."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blacktree.cli.options import config_option, debug_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from blacktree.cli.child import WorkerChild
    from blacktree.cli.farm import AnnouncedDoor
    from blacktree.config import Config
    from blacktree.keyfile import KeyPlace
    from blacktree.orchestrator.control import Control, WorkerView

EPILOG = """\b
Examples:
  blacktree up
  blacktree up --state /srv/blacktree --listen 127.0.0.1:0 --slots 4
  blacktree up --broker amqp://user:password@localhost/

Ctrl-C or SIGTERM ends it: running builds get ten seconds, then go back to the queue for the next start.
"""

# For its process to come up, which a small or busy machine takes its time for, and then for it to take builds.
WORKER_START_SECONDS = 30.0
WORKER_WAIT_SECONDS = 8.0
# After the grace: the last reports and the worker's own shields.
WORKER_END_SECONDS = 10.0


@click.command(epilog=EPILOG)
@click.option("--state", metavar="DIR", type=click.Path(file_okay=False), help="Where the farm remembers.")
@click.option("--listen", metavar="HOST:PORT", help="The door's address (default 127.0.0.1:8080; port 0: any).")
@click.option("--slots", metavar="N", type=click.IntRange(1, 1024), help="How many builds at once (default 2).")
@click.option("--broker", metavar="URL", help="A RabbitMQ to use, amqp://…; without it the queue is in the state.")
@config_option
@debug_option
def up(state: str | None, listen: str | None, slots: int | None, broker: str | None, config_file: str | None) -> None:
    """Run a whole farm here: orchestrator, queue, one worker and the door, its memory in one place."""
    import trio

    from blacktree import log
    from blacktree.cli.farm import completed, key_places, state_directory
    from blacktree.cli.state import open_state, runtime_directory
    from blacktree.config import load

    flags = {
        ("orchestrator", "state_directory"): os.path.abspath(state) if state else None,
        ("orchestrator", "listen"): listen,
        ("orchestrator", "broker_url"): broker,
        ("worker", "slots"): slots,
    }
    config, origins = load(config_file, flags=flags)
    log.configure(config.log)
    directory = state_directory(config, "up")
    with open_state(directory):
        runtime = runtime_directory(os.environ, directory)
        config = on_one_machine(completed(config, origins, directory, one_machine=True), directory, runtime)
        keys = key_places(config, make=True)
        absolute = os.path.abspath(config_file) if config_file else None
        trio.run(_run, config, directory, absolute, keys, strict_exception_groups=True)


def on_one_machine(config: "Config", state: Path, runtime: Path) -> "Config":
    """Both sides meet on sockets that only this user can open: no port, so two farms never collide."""
    import msgspec

    door = f"unix:{runtime}/farm.sock"
    orchestrator = msgspec.structs.replace(config.orchestrator, grpc_listen=door)
    worker = msgspec.structs.replace(
        config.worker,
        orchestrator=door,
        listen=f"unix:{runtime}/worker.sock",
        advertise=f"unix:{runtime}/worker.sock",
        state_directory=str(state / "worker"),
        join_token_file=orchestrator.join_token_file,
    )
    return msgspec.structs.replace(config, orchestrator=orchestrator, worker=worker)


def worker_environment(config: "Config") -> dict[str, str]:
    """The environment of the child: ours, with what `up` decided."""
    from blacktree.concurrency.oneself import own_python_path
    from blacktree.keyfile import VARIABLE

    environ = {key: value for key, value in os.environ.items() if key not in ("NOTIFY_SOCKET", "STATE_DIRECTORY")}
    for key in ("orchestrator", "listen", "advertise", "state_directory", "join_token_file", "slots", "id"):
        environ[f"BLACKTREE_WORKER_{key.upper()}"] = str(getattr(config.worker, key))
    # The broker's password and the farm's key are none of the worker's business, nor is what makes a client of this
    # shell.
    for key in ("BLACKTREE_ORCHESTRATOR_BROKER_URL", "MQ_URL", VARIABLE, "BLACKTREE_TOKEN", "BLACKTREE_SERVER"):
        environ.pop(key, None)
    environ["PYTHONPATH"] = own_python_path(os.environ)
    return environ


async def _run(config: "Config", state: Path, config_file: str | None, keys: "Callable[[str], KeyPlace]") -> None:
    """Orchestrator here, worker as a child; the child is ended when the orchestrator has: it drains first."""
    import functools

    import trio

    from blacktree.cli.child import WorkerChild
    from blacktree.cli.farm import AnnouncedDoor, announced_doors
    from blacktree.cli.scaling import worker_providers
    from blacktree.orchestrator.daemon import serve

    opened: list[AnnouncedDoor] = []
    controls: list[Control] = []
    providers = worker_providers(config, state)
    make_doors = announced_doors(config, state, opened)

    def doors(control: "Control") -> "list[AnnouncedDoor]":
        controls.append(control)
        return list(make_doors(control))

    arguments = ["worker", "--with-farm", str(state)]
    if config_file:
        arguments += ["--config", config_file]
    child = WorkerChild(
        arguments,
        worker_environment(config),
        state,
        grace_seconds=config.worker.shutdown_grace_seconds + WORKER_END_SECONDS,
    )
    async with trio.open_nursery() as outer:
        async with trio.open_nursery() as farm:
            start = functools.partial(
                serve, config, doors=doors, farewell=child.end, key_place=keys, open_worker_provider=providers
            )
            await farm.start(start)
            await outer.start(child.run)
            outer.start_soon(_announce, config, state, opened[0], controls[0], child)
        outer.cancel_scope.cancel()


async def _announce(
    config: "Config", state: Path, door: "AnnouncedDoor", control: "Control", child: "WorkerChild"
) -> None:
    """Say where everything is, once there is a worker or it is clear that none comes soon."""
    import trio

    def look() -> "WorkerView | None":
        if child.pid is None:
            # One of an earlier start, with other settings, may be here still while it is ended.
            return None
        return next((worker for worker in control.workers() if worker.state != "dead"), None)

    with trio.move_on_after(WORKER_START_SECONDS):
        while (found := look()) is None and not child.ends:
            await trio.sleep(0.05)
    with trio.move_on_after(WORKER_WAIT_SECONDS):
        while found is None or found.refusal:
            await trio.sleep(0.05)
            found = look()
    rows = [("viewer", f"{door.url}/"), ("token", config.orchestrator.token_file), ("state", str(state))]
    rows.append(("worker", worker_line(found)))
    if sys.stdout.isatty():
        # A log file would keep the link for whoever reads it; the screen belongs to the one who started the farm.
        rows.insert(1, ("login", f"{door.login_link()} (once, within ten minutes)"))
    lines = [headline(found), ""]
    lines += [f"  {name:<7} {text}" for name, text in rows]
    lines += ["", "Build something:  blacktree build https://github.com/owner/app.git"]
    click.echo("\n".join(lines))
    sys.stdout.flush()


def headline(found: "WorkerView | None") -> str:
    """Whether a build that is asked for now would begin."""
    if found is None:
        return "The farm is open, and waits for its worker."
    return "The farm is open, but its worker takes no builds yet." if found.refusal else "The farm is ready."


def worker_line(found: "WorkerView | None") -> str:
    """The worker in one line, with what keeps it from building."""
    if found is None:
        return "not here yet; its messages on stderr say why, and `blacktree doctor` checks what it needs"
    slots = f"{found.slots} slot{'' if found.slots == 1 else 's'}"
    line = f"{found.id}, {slots}{f', {found.engine}' if found.engine else ''}"
    return f"{line}; takes nothing now: {found.refusal}" if found.refusal else line
