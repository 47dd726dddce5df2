"""docs/errors.md names every code that the sources can give, and none that they cannot."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLES = (
    "services/sync/failures.py",
    "providers/aws/faults.py",
    "providers/docker/faults.py",
    "providers/registry/faults.py",
    "storage/trouble.py",
)
_CODE = re.compile(r"[a-z]+(_[a-z]+)*\Z")


def _strings(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


def _given(tree: ast.Module) -> Iterator[str]:
    """`code="…"`, `gone="…"` and `default_code = "…"`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in ("code", "gone"):
            match node.value:
                case ast.Constant() | ast.IfExp(body=ast.Constant()):
                    yield from _strings(node.value)
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name) and target.id == "default_code" and node.value is not None:
                yield from _strings(node.value)


def _in_tables(tree: ast.Module) -> Iterator[str]:
    """The words with an underscore in the tables of a border."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            yield from (text for text in _strings(node.value) if "_" in text)


def _codes() -> set[str]:
    found: set[str] = set()
    for path in sorted((ROOT / "blacktree").rglob("*.py")):
        if "generated" in path.parts:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found.update(_given(tree))
        if path.relative_to(ROOT / "blacktree").as_posix() in TABLES:
            found.update(_in_tables(tree))
    return {code for code in found if _CODE.match(code)}


def _told() -> str:
    return (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")


def test_every_code_is_told() -> None:
    told = set(re.findall(r"`([a-z_]+)`", _told()))
    assert _codes() - told == set()


def test_no_code_is_told_that_there_is_not() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "blacktree").rglob("*.py"))
    words = set(re.findall(r'"([a-z_]+)"', sources))
    rows = [line.split("|")[1] for line in _told().splitlines() if line.startswith("| `")]
    assert [code for row in rows for code in re.findall(r"`([a-z_]+)`", row) if code not in words] == []
