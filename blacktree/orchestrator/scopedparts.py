"""Deployments and sources as a token sees them that is for some repositories alone."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec

from blacktree.deployment import DeployImage, Deployment
from blacktree.errors import NotAllowed, NotFound
from blacktree.event import Record
from blacktree.job import Origin
from blacktree.orchestrator.control import Follow, Slice
from blacktree.orchestrator.deploymentcontrol import Deployed, DeploymentControl, DeploymentView
from blacktree.orchestrator.hookcontrol import SourceControl, SourceView
from blacktree.orchestrator.places import Places, farm_wide
from blacktree.runspec import RunSpec
from blacktree.source import Source, checked, job_spec, repository_key, source_from
from blacktree.spec import JobSpec


class ScopedDeployments:
    """A `DeploymentControl` of deployments whose every version came from a repository that fits."""

    def __init__(self, deployments: DeploymentControl, places: Places) -> None:
        self._deployments = deployments
        self._places = places

    async def deploy(self, wanted: DeployImage | JobSpec, *, key: str | None = None, actor: str = "") -> Deployed:
        """See `DeploymentControl.deploy`.

        Raises `NotAllowed` for another repository, for an image, and for a name that another's deployment has.
        """
        if not isinstance(wanted, JobSpec):
            # It may be anything: an image says of no repository that it came from there.
            raise farm_wide("deploy a repository, or use a token without `--repository`")
        self._places.check(wanted.repository)
        await self.check_name(wanted.run)
        spec, key = self._places.keyed(wanted, key)
        return await self._deployments.deploy(spec, key=key, actor=actor)

    async def check_name(self, run: RunSpec | None) -> None:
        """Whether what is to run is nobody else's deployment. Raises `NotAllowed`."""
        if run is not None and not await self._is_free(run.name):
            raise NotAllowed(
                f"the name {run.name!r} is not for this token", code="name_not_allowed", advice="choose another"
            )

    async def _is_free(self, name: str) -> bool:
        try:
            return self._has((await self._deployments.get(name)).deployment)
        except NotFound:
            return True

    def _has(self, deployment: Deployment) -> bool:
        versions = deployment.versions
        return bool(versions) and all(self._places.has(each.repository) for each in versions)

    async def all(self) -> Sequence[DeploymentView]:
        """See `DeploymentControl.all`."""
        return [view for view in await self._deployments.all() if self._has(view.deployment)]

    async def get(self, name: str) -> DeploymentView:
        """See `DeploymentControl.get`."""
        view = await self._deployments.get(name)
        if not self._has(view.deployment):
            raise NotFound(f"no deployment {name[:80]!r}", advice="`blacktree deployments` lists them")
        return view

    async def stop(self, name: str, *, actor: str = "") -> DeploymentView:
        """See `DeploymentControl.stop`."""
        await self.get(name)
        return await self._deployments.stop(name, actor=actor)

    async def restart(self, name: str, *, actor: str = "") -> DeploymentView:
        """See `DeploymentControl.restart`."""
        await self.get(name)
        return await self._deployments.restart(name, actor=actor)

    async def delete(self, name: str, *, secrets: bool = False, actor: str = "") -> DeploymentView:
        """See `DeploymentControl.delete`. Secrets are the farm's."""
        await self.get(name)
        if secrets:
            raise farm_wide()
        return await self._deployments.delete(name, actor=actor)

    async def rollback(self, name: str, version: int | None = None, *, actor: str = "") -> Deployed:
        """See `DeploymentControl.rollback`."""
        await self.get(name)
        return await self._deployments.rollback(name, version, actor=actor)

    async def events(self, name: str, from_seq: int, limit: int) -> Slice:
        """See `DeploymentControl.events`."""
        await self.get(name)
        return await self._deployments.events(name, from_seq, limit)

    async def records(self, name: str, from_seq: int, limit: int) -> list[tuple[int, Record]]:
        """See `DeploymentControl.records`."""
        await self.get(name)
        return await self._deployments.records(name, from_seq, limit)

    async def first_seq(self, name: str) -> int:
        """See `DeploymentControl.first_seq`."""
        await self.get(name)
        return await self._deployments.first_seq(name)

    async def next_seq(self, name: str) -> int:
        """See `DeploymentControl.next_seq`."""
        await self.get(name)
        return await self._deployments.next_seq(name)

    @asynccontextmanager
    async def _follow(self, name: str, from_seq: int) -> AsyncIterator[Follow]:
        await self.get(name)
        async with self._deployments.follow(name, from_seq) as follow:
            yield follow

    def follow(self, name: str, from_seq: int) -> AbstractAsyncContextManager[Follow]:
        """See `DeploymentControl.follow`."""
        return self._follow(name, from_seq)

    async def text_size(self, name: str) -> tuple[int, int]:
        """See `DeploymentControl.text_size`."""
        await self.get(name)
        return await self._deployments.text_size(name)

    async def read_text(self, name: str, offset: int, max_bytes: int) -> bytes:
        """See `DeploymentControl.read_text`."""
        await self.get(name)
        return await self._deployments.read_text(name, offset, max_bytes)

    async def wait_changed(self, since: int) -> int:
        """See `DeploymentControl.wait_changed`."""
        return await self._deployments.wait_changed(since)


class ScopedSources:
    """A `SourceControl` of sources whose repository fits."""

    def __init__(self, sources: SourceControl, places: Places, deployments: ScopedDeployments) -> None:
        self._sources = sources
        self._places = places
        self._deployments = deployments

    async def add(self, source: Source, *, actor: str = "") -> SourceView:
        """See `SourceControl.add`. Raises `NotAllowed` for another repository, and for another's deployment."""
        self._places.check(source.repository)
        await self._check_run(checked(source))
        _check_forge(source)
        return await self._sources.add(source, actor=actor)

    async def edit(self, name: str, changes: dict[str, Any], *, actor: str = "") -> SourceView:
        """See `SourceControl.edit`. Raises `NotAllowed` as `add`."""
        before = self.get(name).source
        if isinstance(wanted := changes.get("repository"), str):
            self._places.check(wanted)
        after = source_from({**msgspec.to_builtins(before), **changes})
        await self._check_run(after)
        if _forge_of(after) != _forge_of(before):
            _check_forge(after)
        return await self._sources.edit(name, changes, actor=actor)

    async def _check_run(self, source: Source) -> None:
        spec = job_spec(source, Origin(source=source.name, branch="main", commit="0" * 40))
        await self._deployments.check_name(spec.run)

    async def remove(self, name: str, *, actor: str = "") -> SourceView:
        """See `SourceControl.remove`."""
        self.get(name)
        return await self._sources.remove(name, actor=actor)

    def get(self, name: str) -> SourceView:
        """See `SourceControl.get`."""
        try:
            view = self._sources.get(name)
        except NotFound:
            raise _no_source(name) from None
        if not self._places.has(view.source.repository):
            raise _no_source(name)
        return view

    def all(self) -> list[SourceView]:
        """See `SourceControl.all`."""
        return [view for view in self._sources.all() if self._places.has(view.source.repository)]

    def door_at(self, port: int) -> None:
        """The door's own business."""
        self._sources.door_at(port)


def _forge_of(source: Source) -> tuple[str, str | None, str | None]:
    """Where a forge's token goes, and which."""
    host = repository_key(source.repository).partition("/")[0]
    if not source.repository.startswith(("https://", "http://")):
        # That of ssh is not the forge's.
        host = host.partition(":")[0]
    return host, source.forge_token, source.forge_url


def _check_forge(source: Source) -> None:
    """Whether the forge's token goes to that forge, and nowhere else: secrets are the farm's. Raises `NotAllowed`."""
    host, token, url = _forge_of(source)
    if token is not None and (url is not None or token.lower() != host):
        raise farm_wide(
            f"leave out `forge_url`, and name the forge token `{host}`, or use a token without `--repository`"
        )


def _no_source(name: str) -> NotFound:
    return NotFound(f"there is no source {name[:100]!r}", advice="`blacktree source list` shows them")
