"""Running the command line in the test's own process."""

from collections.abc import Mapping
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from blacktree.cli.main import tree


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def run(*arguments: str, env: Mapping[str, str | None] | None = None) -> Ran:
    """`blacktree ARGUMENTS`, with nothing on the terminal and no farm to be found unless `env` says so."""
    found = CliRunner().invoke(tree, list(arguments), env=dict(env or {}), prog_name="blacktree")
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return Ran(found.exit_code, found.stdout, found.stderr)


def one_line(ran: Ran) -> str:
    """The single line that an error is."""
    lines = ran.err.splitlines()
    if len(lines) != 1:
        pytest.fail(f"expected one line on stderr: {ran}")
    return lines[0]
