"""For stand-ins that have nothing to do with deployments: a farm that has none."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import trio

from blacktree.deployment import DeployImage
from blacktree.errors import NotFound, Unavailable
from blacktree.event import Record
from blacktree.orchestrator.control import Follow, Slice
from blacktree.orchestrator.deploymentcontrol import Deployed, DeploymentView
from blacktree.spec import JobSpec


class NoDeployments:
    """A `DeploymentControl`."""

    async def deploy(self, wanted: DeployImage | JobSpec, *, key: str | None = None, actor: str = "") -> Deployed:
        raise Unavailable("this farm runs nothing")

    async def all(self) -> Sequence[DeploymentView]:
        return []

    async def get(self, name: str) -> DeploymentView:
        raise NotFound(f"no deployment {name!r}")

    async def stop(self, name: str, *, actor: str = "") -> DeploymentView:
        return await self.get(name)

    async def restart(self, name: str, *, actor: str = "") -> DeploymentView:
        return await self.get(name)

    async def rollback(self, name: str, version: int | None = None, *, actor: str = "") -> Deployed:
        raise NotFound(f"no deployment {name!r}")

    async def delete(self, name: str, *, secrets: bool = False, actor: str = "") -> DeploymentView:
        return await self.get(name)

    async def events(self, name: str, from_seq: int, limit: int) -> Slice:
        raise NotFound(f"no deployment {name!r}")

    async def records(self, name: str, from_seq: int, limit: int) -> list[tuple[int, Record]]:
        raise NotFound(f"no deployment {name!r}")

    async def first_seq(self, name: str) -> int:
        raise NotFound(f"no deployment {name!r}")

    async def next_seq(self, name: str) -> int:
        raise NotFound(f"no deployment {name!r}")

    def follow(self, name: str, from_seq: int) -> AbstractAsyncContextManager[Follow]:
        raise NotFound(f"no deployment {name!r}")

    async def text_size(self, name: str) -> tuple[int, int]:
        raise NotFound(f"no deployment {name!r}")

    async def read_text(self, name: str, offset: int, max_bytes: int) -> bytes:
        raise NotFound(f"no deployment {name!r}")

    async def wait_changed(self, since: int) -> int:
        await trio.sleep_forever()
        raise AssertionError
