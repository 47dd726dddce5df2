"""What a shell completes from the farm: ids and names, at once or not at all, and never a word of trouble.

One plain HTTP request: the client of the commands takes longer to load than a person waits after Tab.
"""

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

import click
from click.shell_completion import CompletionItem

from blacktree.cli.options import SERVER, TOKEN

SECONDS = 0.3
MOST = 100
_MOST_BYTES = 8 << 20
# Shells put what they are given on the command line as it is: nothing else gets there.
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@+-]*")

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]


def _completed(path: str, items: Callable[[Any], Iterator[tuple[str, str]]]) -> Complete:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        found = {}
        try:
            for value, note in items(_asked(ctx, path)):
                if value.startswith(incomplete) and _SAFE.fullmatch(value):
                    found[value] = note
        except (LookupError, TypeError, AttributeError):
            return []  # Nothing came, or nothing that makes sense.
        # Left in the farm's order: the newest job is the likeliest.
        return [CompletionItem(value, help=_note(note)) for value, note in list(found.items())[:MOST]]

    return complete


def _note(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:80]


def _asked(ctx: click.Context, path: str) -> Any:
    """What the farm answers within the time; None if it does not."""
    # Before the clock runs: what loading takes is not the farm's time.
    for name in ("http.client", "blacktree.cli.server"):
        import_module(name)
    answers: list[Any] = []

    def ask() -> None:
        # Whatever goes wrong here, a person in the middle of a line has no use for it.
        try:
            answers.append(_get(ctx, path))
        except Exception:
            return

    # As a daemon: a name server that is silent must not hold up the shell.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return answers[0] if answers else None


def _get(ctx: click.Context, path: str) -> Any:
    from http.client import HTTPConnection, HTTPSConnection

    from blacktree.cli.server import resolve

    where = resolve(ctx.meta.get(SERVER), ctx.meta.get(TOKEN), os.environ)
    parts = urlsplit(where.url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=SECONDS)
    try:
        headers = {"Authorization": f"Bearer {where.token}"} if where.token else {}
        connection.request("GET", f"{parts.path}/api/v1{path}", headers=headers)
        return json.loads(connection.getresponse().read(_MOST_BYTES))
    finally:
        connection.close()


def _jobs(found: Any) -> Iterator[tuple[str, str]]:
    for job in found["jobs"]:
        yield job["id"], f"{job['state']} {job['spec']['repository']}"


def _workers(found: Any) -> Iterator[tuple[str, str]]:
    for worker in found["workers"]:
        yield worker["id"], f"{worker['state']} {worker['pool']}"


def _pools(found: Any) -> Iterator[tuple[str, str]]:
    for pool in sorted({worker["pool"] for worker in found["workers"]}):
        count = sum(worker["pool"] == pool for worker in found["workers"])
        yield pool, f"{count} worker{'' if count == 1 else 's'}"


def _named(key: str) -> Callable[[Any], Iterator[tuple[str, str]]]:
    def items(found: Any) -> Iterator[tuple[str, str]]:
        for each in found[key]:
            yield each["name"], str(each.get("state") or each.get("repository") or "")

    return items


def directory(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """A repository on this disk, as far as what is typed looks like one."""
    return [CompletionItem(incomplete, type="dir")] if incomplete.startswith((".", "/", "~")) else []


any_job = _completed(f"/jobs?limit={MOST}", _jobs)
running_job = _completed(f"/jobs?limit={MOST}&state=queued,assigned,running,canceling", _jobs)
ended_job = _completed(f"/jobs?limit={MOST}&state=succeeded,failed,canceled,timed_out,lost", _jobs)
worker_name = _completed("/workers", _workers)
pool_name = _completed("/workers", _pools)
deployment_name = _completed("/deployments", _named("deployments"))
source_name = _completed("/sources", _named("sources"))
target_name = _completed("/notify", _named("targets"))
token_name = _completed("/tokens", _named("tokens"))
