"""What the doors may ask about deployments. `orchestrator.deploymentdesk.DeploymentDesk` is the answer."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

from blacktree.deployment import DeployImage, Deployment
from blacktree.event import Record
from blacktree.spec import JobSpec

if TYPE_CHECKING:
    from blacktree.orchestrator.control import Follow, Slice


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """One container as the outside sees it.

    `state`: its worker's word for it (`pulling starting healthy unhealthy backing_off failed stopping stopped`), or
    `ordered` (no word yet) or `unknown` (its worker is not here). `serving`: the front ports lead to it. `incoming`: it
    is to take the place of the one of the same index, whose worker is drained.
    """

    version: int
    index: int
    worker_id: str
    state: str
    since: datetime | None = None
    serving: bool = False
    restarts: int = 0
    exit_code: int | None = None
    oom_killed: bool = False
    code: str = ""
    reason: str = ""
    address: str = ""
    container: str = ""
    incoming: bool = False


class DeploymentView(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment, its containers, and what the version that is to take over waits for (empty: nothing)."""

    deployment: Deployment
    replicas: list[ReplicaView]
    waiting: str = ""


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """An accepted deployment: the version's number, and its build if it needs one. `new` false: it was known.

    `from_seq`: everything about this version stands in the log from this number on.
    """

    view: DeploymentView
    version: int
    from_seq: int = 1
    job_id: str | None = None
    new: bool = True


class DeploymentControl(Protocol):
    """All calls may raise `blacktree.errors`; cancelling a call that waits is safe."""

    async def deploy(self, wanted: DeployImage | JobSpec, *, key: str | None = None, actor: str = "") -> Deployed:
        """A new version of the deployment that `run.name` names: of an image, or of what a job will build.

        On record when this returns. `key`: asked with it twice, the same is answered with the first one. Raises
        `BadRequest` (also for run secrets that do not exist), `Conflict` (something else with this key; code
        `port_taken`: no worker has these ports free), `Unavailable`.
        """
        ...

    async def all(self) -> Sequence[DeploymentView]:
        """Every deployment, by name."""
        ...

    async def get(self, name: str) -> DeploymentView:
        """Raises `NotFound`."""
        ...

    async def stop(self, name: str, *, actor: str = "") -> DeploymentView:
        """Stop it; answers when its containers are gone, or after a minute. Stopping twice is no error."""
        ...

    async def restart(self, name: str, *, actor: str = "") -> DeploymentView:
        """New containers for what serves, replica by replica; a stopped one starts its last version. Raises `Conflict`
        when there is nothing to start, or while something else is under way."""
        ...

    async def rollback(self, name: str, version: int | None = None, *, actor: str = "") -> Deployed:
        """A new version like an earlier one. Raises `NotFound`, `Conflict`."""
        ...

    async def delete(self, name: str, *, secrets: bool = False, actor: str = "") -> DeploymentView:
        """Forget one that is stopped: its record and its log. Answers what it was. `secrets`: the run secrets too that
        nothing else names. Raises `NotFound`, `Conflict` (code `not_stopped`) while anything of it runs."""
        ...

    async def events(self, name: str, from_seq: int, limit: int) -> "Slice":
        """Of its log, from the store. What lies before the first kept number is passed over. Raises `NotFound`."""
        ...

    async def records(self, name: str, from_seq: int, limit: int) -> list[tuple[int, Record]]:
        """The same as records, each with its first number. Raises `NotFound`."""
        ...

    async def first_seq(self, name: str) -> int:
        """The first number of its log that is kept. Raises `NotFound`."""
        ...

    async def next_seq(self, name: str) -> int:
        """The number that the next event of its log will have. Raises `NotFound`."""
        ...

    def follow(self, name: str, from_seq: int) -> "AbstractAsyncContextManager[Follow]":
        """Read its log along, without end. Raises `NotFound` on entering."""
        ...

    async def text_size(self, name: str) -> tuple[int, int]:
        """First byte that is kept of its plain log, and the end. Raises `NotFound`."""
        ...

    async def read_text(self, name: str, offset: int, max_bytes: int) -> bytes:
        """A piece of the plain log. Raises `NotFound`."""
        ...

    async def wait_changed(self, since: int) -> int:
        """Waits until any deployment or replica has changed since this version; answers the newest. Start with 0."""
        ...
