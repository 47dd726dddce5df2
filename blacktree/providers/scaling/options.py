"""What the options of the providers have in common: strict reading, and addresses as a worker sees them."""

from collections.abc import Mapping
from typing import Any, TypeVar

from blacktree.errors import BadRequest
from blacktree.scaling import WorkerProviderSettings
from blacktree.strict import convert

T = TypeVar("T")

# What a scaled worker must not be given from outside: who it is and whose it is are the scaler's business.
_OURS = frozenset({"ID", "POOL", "SLOTS", "STATE_DIRECTORY", "JOIN_TOKEN_FILE", "ORCHESTRATOR", "LISTEN", "ADVERTISE"})


def read_options(settings: WorkerProviderSettings, kind: type[T]) -> T:
    """The pool's options as `kind`. Raises `BadRequest` with the path of the mistake."""
    return convert(settings.options, kind, where=f"scaling.pools.{settings.pool}.options", lenient=True)


def check_environment(environment: Mapping[str, str], settings: WorkerProviderSettings) -> None:
    """Raises `BadRequest` for a variable that the scaler sets itself."""
    for name in environment:
        if name.removeprefix("BLACKTREE_WORKER_") in _OURS and name.startswith("BLACKTREE_WORKER_"):
            path = f"scaling.pools.{settings.pool}.options.environment.{name}"
            raise BadRequest(
                f"{path}: the scaler sets this variable itself",
                path=path,
                code="invalid_config",
                advice="for slots, use `slots` of the pool; for addresses, the options `orchestrator`, `listen` and "
                "`advertise`, where the provider has them",
            )


def on_this_machine(bound: str) -> str:
    """The address at which a worker on this machine reaches what was bound.

    >>> on_this_machine("0.0.0.0:5051")
    '127.0.0.1:5051'
    """
    for everywhere, here in (("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:")):
        if bound.startswith(everywhere):
            return here + bound.removeprefix(everywhere)
    return bound


def setting_variables(settings: Mapping[str, Any]) -> dict[str, str]:
    """Worker settings as variables; those that are empty are left out."""
    return {f"BLACKTREE_WORKER_{key.upper()}": str(value) for key, value in settings.items() if value != ""}
