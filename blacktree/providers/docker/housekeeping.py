"""Sweep and prune: what bears our label and nobody needs any more; never another owner's."""

import json
from collections.abc import Collection
from functools import partial
from typing import Any

from blacktree.concurrency.threads import in_thread
from blacktree.errors import EngineLost
from blacktree.providers.base import Budget
from blacktree.providers.docker.engine import Engine, Traits
from blacktree.providers.docker.labels import JOB, OWNER, job_of
from blacktree.providers.docker.leftovers import Execution, executions, kill, tidy
from blacktree.providers.docker.stream import EngineRefused
from blacktree.providers.registry.reference import is_push_tag


async def intermediate(engine: Engine, owner: str) -> dict[str, str]:
    """The classic builder's containers that bear a mark of this owner: id to mark."""
    found: dict[str, str] = {}
    for container in await engine.call("GET", "/containers/json", {"all": "1"}) or []:
        try:
            detail = await engine.call("GET", f"/containers/{container['Id']}/json")
        except EngineRefused as error:
            if error.status == 404:
                continue
            raise
        for line in (detail.get("HostConfig") or {}).get("ExtraHosts") or []:
            mark = str(line).rpartition(":")[0]
            if job_of(mark, owner) is not None:
                found[container["Id"]] = mark
    return found


async def remove_container(engine: Engine, name: str) -> bool:
    """Kill and remove; whether it is gone. 409 is one that the engine is removing already."""
    return await _remove(engine, f"/containers/{name}", {"force": "1", "v": "1"})


async def _remove(engine: Engine, path: str, params: dict[str, str] | None = None) -> bool:
    try:
        await engine.call("DELETE", path, params)
    except EngineRefused as error:
        return error.status == 404
    return True


def _mine(owner: str, **more: str) -> dict[str, str]:
    return {"filters": json.dumps({"label": [f"{OWNER}={owner}"], **{key: [value] for key, value in more.items()}})}


class Housekeeping:
    """One owner's things on one engine."""

    def __init__(self, engine: Engine, owner: str) -> None:
        self._engine = engine
        self._owner = owner

    async def containers(self) -> dict[str, str]:
        """Every container of ours and its job."""
        call = self._engine.call
        listed = await call("GET", "/containers/json", {"all": "1", **_mine(self._owner)}) or []
        found = {each["Id"]: str(each["Labels"].get(JOB, "")) for each in listed if not await self._inherits(each)}
        for name, mark in (await intermediate(self._engine, self._owner)).items():
            found[name] = job_of(mark, self._owner) or ""
        return found

    async def _inherits(self, container: Any) -> bool:
        """Whether its labels are its image's: then somebody runs what we built, and it is none of ours."""
        try:
            image = await self._engine.call("GET", f"/images/{container['ImageID']}/json")
        except EngineRefused as error:
            if error.status == 404:
                return True
            raise
        labels = (image.get("Config") or {}).get("Labels") or {}
        return all(labels.get(name) == container["Labels"].get(name) for name in (OWNER, JOB))

    async def volumes(self) -> dict[str, str]:
        """Every volume of ours and its job."""
        answer = await self._engine.call("GET", "/volumes", _mine(self._owner)) or {}
        return {each["Name"]: str((each.get("Labels") or {}).get(JOB, "")) for each in answer.get("Volumes") or []}

    async def networks(self) -> dict[str, str]:
        """Every network of ours and its job."""
        answer = await self._engine.call("GET", "/networks", _mine(self._owner)) or []
        return {each["Id"]: str((each.get("Labels") or {}).get(JOB, "")) for each in answer}

    async def sweep(self, alive: Collection[str], traits: Traits, *, local: bool) -> list[str]:
        """Remove what belongs to none of the `alive` jobs; answers what was removed. Raises `EngineLost`."""
        removed: list[str] = []
        if local:
            for orphan in await orphans(traits):
                removed.append(f"process {orphan.command[:80]!r} of an engine that has ended")
                await in_thread(partial(kill, orphan.id))
                await in_thread(partial(tidy, orphan.id))
        try:
            # Containers first: they hold volumes, networks and images.
            for name, job in (await self.containers()).items():
                if job not in alive and await remove_container(self._engine, name):
                    removed.append(f"container {name[:12]}")
            for name, job in (await self.volumes()).items():
                if job not in alive and await _remove(self._engine, f"/volumes/{name}"):
                    removed.append(f"volume {name[:40]}")
            for name, job in (await self.networks()).items():
                if job not in alive and await _remove(self._engine, f"/networks/{name}"):
                    removed.append(f"network {name[:12]}")
            removed += await self._stray_tags(alive)
            dangling = await self._engine.call("GET", "/images/json", _mine(self._owner, dangling="true")) or []
            for image in dangling:
                if (image.get("Labels") or {}).get(JOB) in alive:
                    continue
                if await _remove(self._engine, f"/images/{image['Id']}"):
                    removed.append(f"image {image['Id'][7:19]}")
        except EngineRefused as error:
            raise EngineLost(f"sweeping: the engine says {error}") from None
        return removed

    async def _stray_tags(self, alive: Collection[str]) -> list[str]:
        """Names under which a worker that was killed was pushing."""
        removed: list[str] = []
        for image in await self._engine.call("GET", "/images/json", _mine(self._owner)) or []:
            job = (image.get("Labels") or {}).get(JOB, "")
            if job in alive:
                continue
            for name in image.get("RepoTags") or []:
                if is_push_tag(name.rpartition(":")[2], job) and await _remove(
                    self._engine, f"/images/{name}", {"noprune": "1"}
                ):
                    removed.append(f"name {name}")
        return removed

    async def prune(self, budget: Budget, ours: Collection[str], keep: Collection[str]) -> tuple[int, list[str]]:
        """Bring `ours` and the engine's build cache under the budget; bytes freed, and which images are gone.

        `keep`: images not to touch. An image that bears our labels and is not among `ours` was built by somebody else
        from one of ours.
        """
        try:
            freed, gone = await self._prune_images(budget.image_bytes, frozenset(ours), keep)
            return freed + await self._prune_cache(budget.cache_bytes), gone
        except EngineRefused as error:
            raise EngineLost(f"pruning: the engine says {error}") from None

    async def _prune_images(self, most: int, ours: Collection[str], keep: Collection[str]) -> tuple[int, list[str]]:
        call = self._engine.call
        images: list[tuple[str, str, list[str]]] = []
        layers: dict[str, dict[str, int]] = {}
        # What was pulled for a replica bears the label of whoever built it, if any.
        everything = await call("GET", "/images/json") or []
        there = {each["Id"] for each in everything}
        gone = [image for image in ours if image not in there]
        for listed in everything:
            if listed["Id"] not in ours:
                continue
            try:
                detail = await call("GET", f"/images/{listed['Id']}/json")
                layers[listed["Id"]] = layers_of(await call("GET", f"/images/{listed['Id']}/history"))
            except EngineRefused:
                continue
            # A cached build's image bears the time of its layers: its tag is younger.
            when = max(str(detail.get("Created", "")), str((detail.get("Metadata") or {}).get("LastTagTime", "")))
            images.append((when, listed["Id"], list(listed.get("RepoTags") or [])))
        used = {each.get("ImageID") for each in await call("GET", "/containers/json", {"all": "1"}) or []}
        before = total = union(layers)
        for _, image, tags in sorted(images):
            if total <= most:
                break
            if image in used or image in keep:
                continue
            # Without force: the engine still refuses what a container has begun to use meanwhile.
            names = [tag for tag in tags if tag != "<none>:<none>"] or [image]
            if all([await _remove(self._engine, f"/images/{name}") for name in names]):
                gone.append(image)
                del layers[image]
                total = union(layers)
        return before - total, gone

    async def _prune_cache(self, most: int) -> int:
        answer = await self._engine.call("POST", "/build/prune", {"keep-storage": str(max(1, most)), "all": "1"})
        return int((answer or {}).get("SpaceReclaimed") or 0)


async def orphans(traits: Traits) -> list[Execution]:
    """Steps whose engine has been killed under them."""
    return [each for each in await in_thread(lambda: executions(traits.root)) if each.orphan]


def layers_of(history: Any) -> dict[str, int]:
    """An image's layers by what they are built from, with their bytes: equal beginnings are shared on disk."""
    found: dict[str, int] = {}
    name = ""
    for each in reversed(history or []):
        size = int(each.get("Size") or 0)
        if size:
            name = f"{name}\n{each.get('Created')} {size} {each.get('CreatedBy')}"
            found[name] = size
    return found


def union(layers: dict[str, dict[str, int]]) -> int:
    """The bytes of all these layers, shared ones once."""
    together: dict[str, int] = {}
    for each in layers.values():
        together |= each
    return sum(together.values())
