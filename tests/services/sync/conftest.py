"""A build to sync, a host to sync from, and what the sink got."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from blacktree.config import WorkerConfig
from blacktree.services.core.context import Build
from blacktree.services.sync.step import SyncStep
from blacktree.services.sync.tree import GitContext
from blacktree.spec import JobSpec
from tests.parts.git_server import GitServer, git_server, make_repository


@dataclass
class Heard:
    """A sink that remembers."""

    steps: list[tuple[str, bool]] = field(default_factory=list)
    text: bytes = b""
    notices: list[str] = field(default_factory=list)

    async def step_started(self, step: str, name: str) -> None: ...

    async def step_finished(self, step: str, name: str, *, cached: bool, seconds: float, ok: bool) -> None:
        self.steps.append((step, ok))

    async def output(self, step: str, stream: str, data: bytes) -> None:
        self.text += data

    async def progress(self, step: str, current: int, total: int, unit: str) -> None: ...

    async def notice(self, code: str, text: str, *, step: str = "") -> None:
        self.notices.append(code)


@dataclass
class Syncs:
    """Makes builds in one worker's state directory and syncs them."""

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    heard: Heard = field(default_factory=Heard)
    number: int = 0
    on_record: list[str] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.path / "state"

    def build(self, repository: str, *, local: bool = False, commit: str | None = None, **spec: Any) -> Build:
        self.number += 1
        settings: dict[str, Any] = {"state_directory": str(self.state), "git_stall_seconds": 20.0} | self.config
        workspace = self.state / "work" / f"job{self.number}-1"
        workspace.mkdir(parents=True)

        async def resolved(commit: str) -> None:
            self.on_record.append(commit)

        @asynccontextmanager
        async def publishing() -> AsyncIterator[None]:
            yield

        return Build(
            job_id=f"job{self.number}",
            attempt=1,
            spec=JobSpec(repository=repository, **spec),
            config=WorkerConfig(**settings),
            workspace=workspace,
            provider=cast("Any", None),
            sink=self.heard,
            resolved=resolved,
            publishing=publishing,
            allow_local_sources=local,
            commit=commit,
        )

    async def sync(self, repository: str, **how: Any) -> Build:
        build = self.build(repository, **how)
        await SyncStep().run(build)
        return build

    async def files(self, build: Build) -> dict[str, bytes]:
        """What the context has."""
        assert isinstance(build.context, GitContext)
        entries = await build.context.entries()
        found = {entry.path: b"" for entry in entries}
        async with build.context.read(entries) as contents:
            async for entry, chunk in contents:
                assert len(chunk) <= 65536
                found[entry.path] += chunk
        return found


@pytest.fixture
def syncs(tmp_path: Path) -> Syncs:
    return Syncs(tmp_path)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[GitServer]:
    """Smart HTTP over `tmp_path/host`."""
    root = tmp_path / "host"
    root.mkdir()
    with git_server(root) as server:
        yield server


@pytest.fixture
def app(host: GitServer) -> Path:
    """A repository `app` on the host."""
    return make_repository(host.root / "app", {"Dockerfile": "FROM scratch\n", "src/main.txt": "hello\n"})
