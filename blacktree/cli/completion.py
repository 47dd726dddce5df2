"""`blacktree completion`: what a shell needs to complete commands, options, ids and names."""

import click
from click.shell_completion import get_completion_class

from blacktree.cli.options import debug_option

EPILOG = """\b
Examples:
  eval "$(blacktree completion bash)"                                   # in ~/.bashrc
  eval "$(blacktree completion zsh)"                                    # in ~/.zshrc, after compinit
  blacktree completion fish > ~/.config/fish/completions/blacktree.fish

Job ids, workers, pools and names come from the farm, if it answers within 0.3 s.
"""


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@debug_option
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL."""
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(ctx.find_root().command, {}, "blacktree", "_BLACKTREE_COMPLETE").source())
