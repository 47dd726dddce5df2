"""`blacktree top`."""

import os
import signal

import click

from blacktree.cli.options import debug_option, server_options

EPILOG = """\b
Examples:
  blacktree top
  blacktree top --server https://farm.example --token TOKEN

Keys: arrows choose, Enter opens a job, Tab shows the workers, / filters, c cancels (and asks first), r retries,
d drains a worker, ? lists the others, q leaves.
"""


@click.command(epilog=EPILOG)
@server_options
@debug_option
@click.pass_context
def top(ctx: click.Context) -> None:
    """Watch the farm, its jobs and their logs, live on the whole terminal; cancel, retry and drain from there."""
    import trio

    from blacktree.cli.server import endpoint
    from blacktree.cli.top.run import run

    number = trio.run(run, endpoint())
    if number == signal.SIGINT:
        ctx.exit(130)
    if number:
        # The terminal is as it was; what asked us to end sees that we did.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
