"""The documentation says what is so: every setting with its default, every command, no dead link."""

import json
import re
import shlex
from pathlib import Path

import click
import msgspec
import pytest

from blacktree.cli.main import COMMANDS, tree
from blacktree.config import SECTIONS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_setting_is_in_the_table_with_its_default() -> None:
    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    for section, kind in SECTIONS.items():
        table = text.partition(f"### [{section}]")[2].partition("\n### ")[0]
        told = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", table, re.MULTILINE))
        wanted = {}
        for field in msgspec.structs.fields(kind):
            has_value = field.default is not msgspec.NODEFAULT
            default = field.default if has_value else field.default_factory()
            wanted[field.name] = json.dumps(msgspec.to_builtins(default))
        assert told == wanted, section


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_told_can_be_parsed(page: Path) -> None:
    """Options and arguments of each `blacktree …` line in a shell block exist."""
    seen = 0
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.splitlines():
            found = re.search(r"(?:^|\s|\()blacktree (?P<rest>[^|)]*)", line.partition("#")[0])
            if found is None:
                continue
            name, *arguments = shlex.split(found["rest"])
            command = tree.get_command(click.Context(tree), name)
            assert command is not None, line
            command.make_context(name, arguments)
            seen += 1
    if page.name in ("README.md", "operating.md"):
        assert seen > 3


def test_the_readme_names_every_command() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in COMMANDS if f"blacktree {name}" not in text] == []


def test_files_that_are_told_exist() -> None:
    text = (ROOT / "docs" / "one-job.md").read_text(encoding="utf-8")
    names = re.findall(r"\*\*`([a-z_/]+(?:\.py)?)`\*\*", text)
    assert len(names) > 10
    assert [name for name in names if not (ROOT / "blacktree" / name).exists()] == []
