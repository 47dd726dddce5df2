"""`blacktree orchestrator`: settings, state, doors, then the daemon until it is told to end."""

import click

from blacktree.cli.options import config_option, debug_option

EPILOG = """\b
Examples:
  blacktree orchestrator --config /etc/blacktree/orchestrator.toml
  BLACKTREE_ORCHESTRATOR_BROKER_URL=amqp://user:password@rabbit blacktree orchestrator

SIGTERM ends it: running builds get shutdown_grace_seconds, then go back to the queue. A second one cuts that short.
"""


@click.command(epilog=EPILOG)
@config_option
@debug_option
def orchestrator(config_file: str | None) -> None:
    """Run the orchestrator: it holds the jobs, hands them to workers, keeps their logs and answers at the door."""
    import trio

    from blacktree import log
    from blacktree.cli.farm import AnnouncedDoor, announced_doors, completed, key_places, state_directory
    from blacktree.cli.scaling import worker_providers
    from blacktree.cli.state import open_state
    from blacktree.config import load

    config, origins = load(config_file)
    log.configure(config.log)
    state = state_directory(config, "orchestrator")
    with open_state(state):
        config = completed(config, origins, state, one_machine=False)
        keys = key_places(config, make=False)
        providers = worker_providers(config, state)

        async def run() -> None:
            from blacktree.orchestrator.daemon import serve

            opened: list[AnnouncedDoor] = []
            doors = announced_doors(config, state, opened)
            await serve(config, doors=doors, key_place=keys, open_worker_provider=providers)

        trio.run(run, strict_exception_groups=True)
