"""Requests that the tests here build, each with a nonce so that nothing comes from the cache by chance."""

import secrets
from typing import Any

from blacktree.providers.base import BuildRequest
from tests.contracts.provider import Files, new_job
from tests.parts.engine import BASE


def nonce() -> str:
    """A word that no other run has used."""
    return f"n{secrets.token_hex(6)}"


def dockerfile(*lines: str, base: str = BASE) -> bytes:
    """A Dockerfile on the base image; its first layer is this run's own."""
    return "\n".join([f"FROM {base}", *lines, ""]).encode()


def request(*lines: str, files: dict[str, bytes] | None = None, base: str = BASE, **more: Any) -> BuildRequest:
    """A build of these lines with these files beside the Dockerfile."""
    key = more.pop("key", "test")
    modes = more.pop("modes", None)
    context = more.pop("context", None) or Files(
        {"Dockerfile": dockerfile(*lines, base=base), **(files or {})}, key=key, modes=modes
    )
    return BuildRequest(**{"job_id": new_job(), "attempt": 1, "context": context} | more)
