"""A farm that builds for real, from a git repository made here, with the engine's API beside it."""

import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blacktree.client import Client
from tests.bench.bench import Bench, NotHere
from tests.bench.engine_api import remove_images
from tests.parts.engine import answers, can_start_engines, engine, ensure_base
from tests.parts.whole_farm import WholeFarm, open_whole_farm

_IDENTITY = ("-c", "user.name=Bench", "-c", "user.email=bench@example.invalid", "-c", "commit.gpgsign=false")


class Repository:
    """A git repository on this machine."""

    def __init__(self, path: Path, files: Mapping[str, bytes]) -> None:
        self.path = path
        self.files: dict[str, bytes] = {}
        path.mkdir()
        self._git("-c", "init.defaultBranch=main", "init", "-q")
        self.commit(files)

    def commit(self, files: Mapping[str, bytes]) -> None:
        """These files are new or changed."""
        self.files |= files
        for name, data in files.items():
            (self.path / name).write_bytes(data)
        self._git("add", ".")
        self._git(*_IDENTITY, "commit", "-qm", "Change something")

    def _git(self, *arguments: str) -> None:
        environ = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        subprocess.run(["git", "-C", str(self.path), *arguments], env=environ, check=True, capture_output=True)


class BuildingFarm:
    """An `up` on the container engine. `base` is the image to start from, `label` marks what is built here."""

    def __init__(self, farm: WholeFarm, socket: str) -> None:
        self.farm = farm
        self.socket = socket
        self.base = ensure_base(socket)
        self.label = f"blacktree.bench={secrets.token_hex(6)}"

    def client(self) -> Client:
        """A client of this farm."""
        return Client(self.farm.url, (self.farm.state / "token").read_text().strip())

    def spec(self, repository: Repository, **more: Any) -> dict[str, Any]:
        """A build of the repository as it is now."""
        name, _, value = self.label.partition("=")
        return {"repository": str(repository.path), "image": "blacktree-bench/app", "labels": {name: value}, **more}


@contextmanager
def open_building_farm(bench: Bench, *, slots: int = 1, steps: str = "sync,build,tag") -> Iterator[BuildingFarm]:
    """What it built is removed at the end."""
    if not answers("/var/run/docker.sock") and not can_start_engines():
        raise NotHere("no container engine answers, and none can be started here")
    with engine() as socket:
        settings = {"PROVIDER": "docker", "STEPS": steps, "ENGINE": socket}
        environ = {f"BLACKTREE_WORKER_{key}": value for key, value in settings.items()}
        with open_whole_farm(bench.new_directory("build"), **environ) as farm:
            farm.start("--slots", str(slots))
            building = BuildingFarm(farm, socket)
            try:
                yield building
            finally:
                remove_images(socket, building.label)


async def followed(client: Client, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Submit and follow to the end; the ended job. Raises RuntimeError unless it succeeded."""
    job = await client.submit(spec)
    async with client.watch(job["id"]) as watch:
        async for _ in watch:
            pass
    if watch.job["state"] != "succeeded":
        raise RuntimeError(f"the build ended {watch.job['state']}: {watch.job['error']}")
    return watch.job
