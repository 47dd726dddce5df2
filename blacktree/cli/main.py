"""The command tree: commands are imported when they are asked for, errors become one line and an exit code."""

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from blacktree import __version__
from blacktree.cli.early import interrupts_as_ever, leave_in_order_from_now_on, print_whatever_comes, unreadable_word
from blacktree.cli.options import DEBUG, debug_option, server_options

# Name → (module, one line for `--help`). Written here so that `--help` needs no command's module.
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("up", "Run a whole farm on this machine."),
    "orchestrator": ("orchestrator", "Run the orchestrator daemon."),
    "worker": ("worker", "Run a worker daemon."),
    "build": ("build", "Build an image from a git commit and follow it."),
    "retry": ("build", "Build a job's commit again, as a new job."),
    "logs": ("logs", "Print a job's log."),
    "jobs": ("jobs", "List jobs, newest first."),
    "job": ("jobs", "Show one job whole."),
    "cancel": ("jobs", "Cancel a job and wait until it has really ended."),
    "deploy": ("deploy", "Run an image, or what a repository builds, as a service."),
    "deployments": ("deployments", "List the deployments."),
    "deployment": ("deployments", "Show one deployment whole."),
    "stop": ("deployments", "Stop a deployment."),
    "restart": ("deployments", "Give a deployment new containers, or start a stopped one."),
    "rollback": ("deploy", "Go back to an earlier version of a deployment."),
    "top": ("top.command", "Watch the farm, its jobs and their logs live."),
    "events": ("logs", "Print what happened to the farm itself."),
    "workers": ("workers", "List the workers."),
    "drain": ("workers", "Let a worker finish what it has and take nothing more."),
    "source": ("sources", "Declare repositories whose webhooks are built."),
    "notify": ("notify", "Tell addresses what becomes of jobs and deployments."),
    "secret": ("secret", "Keep secrets for builds, deployments and webhooks."),
    "token": ("token", "Say who may come in at the door, and for what."),
    "audit": ("token", "Show who did what at the door."),
    "registry": ("registry", "Log the farm in to registries."),
    "doctor": ("doctor", "Check every part that a build needs."),
    "config": ("config", "Show the effective configuration and where it comes from."),
    "completion": ("completion", "Print the completion script of a shell."),
    "systemd": ("systemd", "Print a hardened systemd unit."),
}


class Tree(click.Group):
    """The program. Nothing but one line leaves it on an error, unless `--debug` asks for the traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"blacktree.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Commands and options; no command's module is needed for its name."""
        found = [
            CompletionItem(name, help=short) for name, (_, short) in COMMANDS.items() if name.startswith(incomplete)
        ]
        return found if found else click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            from blacktree.strict import nearest

            guess = nearest(name, list(COMMANDS))
            hint = f"did you mean `{guess}`?" if guess else f"commands: {', '.join(COMMANDS)}"
            raise click.UsageError(f"there is no command `{name}`; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, short) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BaseException as error:
            ctx.exit(_report(error, debug=bool(ctx.meta.get(DEBUG))))

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        try:
            result = super().main(*args, **kwargs)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.ctx.get_help(), err=True)
            sys.exit(2)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else _asked_for(kwargs.get("args") or sys.argv[1:])
            _say(f"{error.format_message().rstrip('.')}; see `{path} --help`")
            sys.exit(2)
        except click.ClickException as error:
            _say(error.format_message())
            sys.exit(2)
        except click.Abort:
            sys.exit(130)
        sys.exit(result if isinstance(result, int) else 0)


def _asked_for(words: Sequence[str]) -> str:
    """The command that was meant, for an error that does not tell (click's parser of options)."""
    return " ".join(["blacktree", *(word for word in words if word in COMMANDS)][:2])


def _say(text: str) -> None:
    from blacktree.cli.wording import printed

    click.echo(f"blacktree: {printed(' '.join(text.split()), sys.stderr)}", err=True)


def _report(error: BaseException, *, debug: bool) -> int:
    """Print an error and answer the exit code: that of the worst cause."""
    import os
    import traceback

    from blacktree.cli.exits import BROKEN_PIPE, causes, code_for, line_for

    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if debug:
        traceback.print_exception(error)
    said: set[str] = set()
    codes = []
    for cause in causes(error):
        codes.append(code_for(cause))
        line = line_for(cause)
        if line and line not in said:
            said.add(line)
            _say(line)
    if BROKEN_PIPE in codes:
        # Python flushes stdout once more when it ends: into nothing, or it would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return max(codes)


EXAMPLE = """\b
Examples:
  blacktree up
  blacktree build https://github.com/owner/app.git --ref main -t owner/app:latest
  blacktree logs JOB --follow
"""


@click.group(
    cls=Tree,
    name="blacktree",
    epilog=EXAMPLE,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    invoke_without_command=False,
    no_args_is_help=True,
)
@click.version_option(__version__, "--version", prog_name="blacktree")
@server_options
@debug_option
def tree() -> None:
    """A self-hosted build farm: git commits in, container images out, nothing lost on the way."""


def main() -> None:
    """Run the program; ends the process with an exit code of contract.md, section 1."""
    leave_in_order_from_now_on()
    interrupts_as_ever()
    print_whatever_comes()
    if word := unreadable_word():
        _say(f"{word} is not text in this locale; write and name it in UTF-8, in a UTF-8 locale")
        sys.exit(2)
    tree(prog_name="blacktree")
