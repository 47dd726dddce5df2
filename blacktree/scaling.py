"""The promise of a worker provider: who starts and ends workers, for the scaler in the orchestrator.

A provider from outside the package is found by entry point (group `blacktree.worker_providers`): a plain callable
`open_provider(settings: WorkerProviderSettings) -> AbstractAsyncContextManager[WorkerProvider]`, which checks
`settings.options` at once and raises `BadRequest` for what cannot be. tests/contracts/worker_provider.py is the suite
to hold it to.

The provider keeps no record of its own: what exists, where it exists (processes, containers, pods, instances), is the
record, found again by label, name or tag. So nothing is lost when the orchestrator dies between a start and a note.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec


class WorkerProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider is opened with: one for each pool.

    `orchestrator` is the address at which this orchestrator takes registrations, as it was bound; a provider whose
    workers live elsewhere has an option for the address as seen from there. `options` are the pool's own, unchecked.
    """

    farm_id: str
    pool: str
    slots: int
    orchestrator: str
    join_token_file: str
    state_directory: str
    lease_seconds: float
    options: Mapping[str, Any] = {}


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Something a provider started and that still exists. `running` false: it has ended, or never began.

    `detail` says how it ended, or is empty.
    """

    id: str
    running: bool
    detail: str = ""


class WorkerProvider(Protocol):
    """Starts and ends the workers of one pool. Calls may overlap, but never two for the same worker."""

    async def start(self, worker_id: str) -> None:
        """Begin a worker with this id, in this pool, with these slots. Returns when it was begun, not when it joins.

        The same id twice is one worker. Secrets reach it by file, never by argument or environment. Raises
        `BlacktreeError` with advice; then, and when cancelled, a part of it may exist: `machines` names it.
        """
        ...

    async def machines(self) -> list[Machine]:
        """All that this farm started in this pool and that still exists, also by earlier processes of the orchestrator.

        Things of other farms and pools, and those of the user, are never among them. Raises `BlacktreeError`.
        """
        ...

    async def stop(self, worker_id: str) -> None:
        """End it in order (SIGTERM: it finishes or hands back, then leaves), by force after a bounded time; remove all
        that is left of it, its state too. Returns when it is gone; one that is not there is no error. Raises
        `BlacktreeError`; cancelled, it may still be there, and is stopped again."""
        ...

    async def leave(self) -> None:
        """The farm ends in order: end what must not outlive it. Called once, at the end, with little time."""
        ...


OpenWorkerProvider = Callable[[str, WorkerProviderSettings], AbstractAsyncContextManager[WorkerProvider]]
"""Name and settings → a provider, not yet entered. Raises `BadRequest` for an unknown name or bad options."""
