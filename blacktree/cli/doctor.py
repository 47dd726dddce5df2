"""`blacktree doctor`: checks every part a build needs, and says how to mend each finding."""

import json
import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

import click

from blacktree.cli.options import config_option, debug_option, json_option, server_options

if TYPE_CHECKING:
    from blacktree.cli.findings import Finding

EPILOG = """\b
Examples:
  blacktree doctor
  blacktree doctor --config /etc/blacktree/worker.toml --json

Exit code 0 says that it looked, not that all is well: read `ok` in the JSON.
"""

INDENT = 28
LEAST = 30
_MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "problem": ("PROBLEM", "red")}


@click.command(epilog=EPILOG)
@config_option
@json_option
@server_options
@debug_option
def doctor(config_file: str | None, as_json: bool) -> None:
    """Check engine, git, disk, broker, registries, clocks, tokens and the server, and say how to mend what is wrong."""
    import trio

    from blacktree.cli.examine import examine
    from blacktree.cli.server import ADVICE, Endpoint, resolve
    from blacktree.cli.wording import printed
    from blacktree.config import load
    from blacktree.errors import BlacktreeError

    config, origins = load(config_file)
    meta = click.get_current_context().meta
    where: Endpoint | BlacktreeError
    try:
        where = resolve(meta.get("blacktree.server"), meta.get("blacktree.token"), os.environ)
    except BlacktreeError as error:
        where = error
    findings = trio.run(examine, config, origins, where, ADVICE)
    if as_json:
        import msgspec

        problems = sum(finding.status == "problem" for finding in findings)
        body = {"ok": problems == 0, "findings": msgspec.to_builtins(findings)}
        click.echo(json.dumps(body, ensure_ascii=False))
    else:
        terminal = sys.stdout.isatty()
        columns = shutil.get_terminal_size().columns if terminal else 0
        for finding in findings:
            for line in finding_lines(finding, colour=terminal, columns=columns):
                click.echo(printed(line, sys.stdout))


def finding_lines(finding: "Finding", *, colour: bool, columns: int = 0) -> list[str]:
    """A finding for a person: the mark, what was seen, how to mend it; folded to a terminal with so many columns."""
    mark, hue = _MARKS[finding.status]
    padded = f"{mark:<8}"
    lines = []
    for text in filter(None, (finding.text, finding.advice)):
        width = columns - INDENT
        lines += (
            textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False) if width >= LEAST else [text]
        )
    head = f"{click.style(padded, fg=hue) if colour else padded} {finding.part:<18} {lines[0]}"
    return [head, *(f"{'':<{INDENT}}{line}" for line in lines[1:])]
