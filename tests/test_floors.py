"""The house stands: imports only go down, never across the landing, and asyncio stays on its island."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent / "blacktree"
WORDS = {
    "errors": 0,
    "clock": 0,
    "strict": 0,
    "spec": 0,
    "platforms": 0,
    "endpoints": 0,
    "runspec": 0,
    "deployment": 0,
    "job": 0,
    "told": 0,
    "source": 0,
    "event": 0,
    "config": 0,
    "log": 0,
    "secretfiles": 0,
    "secret": 0,
    "cipher": 0,
    "keyfile": 0,
    "address": 0,
    "scaling": 0,
    "role": 0,
    "histogram": 0,
    "token": 0,
    "audit": 0,
    "notification": 0,
    "tracecontext": 0,
    "inodes": 0,
}
FLOORS = WORDS | {
    "concurrency": 1,
    "storage": 2,
    "broker": 3,
    "rpc": 3,
    "providers": 4,
    "services": 5,
    "worker": 6,
    "orchestrator": 6,
    "api": 7,
    "client": 7,
    "fleet": 8,
    "cli": 9,
    "__main__": 10,
}
# What a room may import besides the words, `concurrency` and itself (architecture: the package arrows).
ARROWS: dict[str, set[str]] = {
    "concurrency": set(),
    "storage": set(),
    "broker": {"storage"},
    "rpc": set(),
    "providers": set(),
    "services": {"providers"},
    "worker": {"rpc", "services", "providers"},
    "orchestrator": {"rpc", "broker", "storage"},
    "api": {"orchestrator"},
    "client": {"api"},
    "fleet": {"client", "providers", "api"},
    "cli": {"api", "client", "fleet", "orchestrator", "worker", "providers", "services", "broker", "storage", "rpc"},
    "__main__": {"cli"},
}
ISLANDERS = {"concurrency/island.py", "rpc/server.py", "rpc/client.py"} | {
    f"broker/{noun}.py" for noun in ("border", "line", "publisher", "session")
}


def _files() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if "generated" not in path.parts]


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "blacktree" else {module}
    return found


def _room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_imports_only_go_down() -> None:
    wrong = []
    for path in _files():
        room = _room(path)
        if room == "__init__":
            continue
        for name in _imports(path):
            parts = name.split(".")
            if parts[0] != "blacktree" or len(parts) < 2 or parts[1] == "__version__":
                continue
            target = parts[1]
            if target == room:
                continue
            if room in WORDS:
                fine = target in WORDS
            else:
                fine = target in WORDS or target == "concurrency" or target in ARROWS[room]
            if not fine or FLOORS[target] > FLOORS[room]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_asyncio_stays_on_its_island() -> None:
    foreign = {"asyncio", "trio_asyncio", "grpclib", "aio_pika", "aiormq"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in _files()
        for name in _imports(path)
        if name.split(".")[0] in foreign and str(path.relative_to(ROOT)) not in ISLANDERS
    ]
    assert wrong == []


def test_sql_stays_in_storage_and_the_engine_in_providers() -> None:
    for path in _files():
        roots = {name.split(".")[0] for name in _imports(path)}
        assert "sqlite3" not in roots or _room(path) == "storage", path
        assert "docker" not in roots or _room(path) == "providers", path


def test_a_planted_upward_import_is_seen(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("from blacktree.cli import main\n")
    assert "blacktree.cli" in _imports(planted)
    assert FLOORS["cli"] > FLOORS["storage"]
