"""Tables for people: aligned columns, cut to the terminal where that is allowed."""

import shutil
import sys
from collections.abc import Sequence

import click

from blacktree.cli.wording import printed

GAP = 2
LEAST = 12


def narrowed(widths: Sequence[int], cut: Sequence[int], columns: int) -> list[int]:
    """The widths with which a line fits into so many columns: the widest of those that may be cut gives first.

    >>> narrowed([16, 40, 20, 2], [1, 2], 60)
    [16, 18, 18, 2]
    """
    result = list(widths)
    over = sum(result) + GAP * (len(result) - 1) - columns
    while over > 0 and (widest := max(cut, key=lambda index: result[index], default=None)) is not None:
        if result[widest] <= LEAST:
            break
        result[widest] -= 1
        over -= 1
    return result


def without_middle(text: str, width: int) -> str:
    """The text in so many characters. Its end is kept longest: that is where a repository has its name.

    >>> without_middle("https://github.com/owner/app.git", 20)
    'https:…owner/app.git'
    """
    if len(text) <= width:
        return text
    head = (width - 1) // 3
    return f"{text[:head]}…{text[head + 1 - width :]}"


def print_table(
    rows: Sequence[tuple[str, ...]],
    *,
    colours: dict[str, str] | None = None,
    column: int = -1,
    cut: Sequence[int] = (),
) -> None:
    """Rows in aligned columns, the first one being the heads; colours on a terminal alone.

    `cut`: columns whose texts may lose their middle where a terminal is too narrow for all of it.
    """
    rows = [tuple(printed(cell, sys.stdout) for cell in row) for row in rows]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    terminal = sys.stdout.isatty()
    if terminal and cut:
        widths = narrowed(widths, cut, shutil.get_terminal_size().columns)
    for number, row in enumerate(rows):
        cells = [without_middle(text, width).ljust(width) for text, width in zip(row, widths, strict=True)]
        cells[-1] = row[-1]
        if terminal and number == 0:
            cells = [click.style(cell, bold=True) for cell in cells]
        elif terminal and colours and row[column] in colours:
            cells[column] = click.style(cells[column], fg=colours[row[column]])
        click.echo((" " * GAP).join(cells).rstrip())
