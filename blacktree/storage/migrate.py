"""Applies `schema/NNNN_name.sql` in order, each once; a state directory from a newer version is refused."""

import sqlite3
from pathlib import Path

from blacktree.errors import StorageFailed

SCHEMA = Path(__file__).parent / "schema"


def steps(directory: Path = SCHEMA) -> list[tuple[int, Path]]:
    """The steps there are, by number."""
    return sorted((int(path.name[:4]), path) for path in directory.glob("[0-9][0-9][0-9][0-9]_*.sql"))


def migrate(connection: sqlite3.Connection, directory: Path = SCHEMA) -> int:
    """Bring the database up to date; answers how many steps that took. A step that fails leaves no trace.

    Raises `StorageFailed` (code `state_too_new`) when the database knows steps that this version does not.
    """
    known = steps(directory)
    newest = known[-1][0] if known else 0
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > newest:
        raise StorageFailed(
            f"the state directory was written by a newer version (schema {version}, this version knows {newest})",
            code="state_too_new",
            advice="run that version again, or put back a backup from before the upgrade",
            again=False,
        )
    missing = [(number, path) for number, path in known if number > version]
    for number, path in missing:
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{path.read_text(encoding='utf-8')}\nPRAGMA user_version = {number};\nCOMMIT;"
            )
        except BaseException:
            if connection.in_transaction:
                connection.rollback()
            raise
    return len(missing)
