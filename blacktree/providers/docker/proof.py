"""The proof that nothing of a build is left on the engine, whatever ended it."""

from collections.abc import Callable
from functools import partial

import trio

from blacktree.concurrency.threads import in_thread
from blacktree.errors import EngineLost
from blacktree.providers.base import Unproven
from blacktree.providers.docker.build import BuildKitBuild
from blacktree.providers.docker.classic import ClassicBuild
from blacktree.providers.docker.engine import Engine, Traits
from blacktree.providers.docker.housekeeping import intermediate, remove_container
from blacktree.providers.docker.leftovers import Execution, alive, claim, executions, kill, tidy
from blacktree.providers.docker.stream import EngineRefused

# With asking and hearing it out (see `ending`), ten seconds in all.
PROOF_SECONDS = 6.0
# An engine whose last word was not heard may still have begun something: nothing must be seen for this long.
SETTLE_SECONDS = 1.0


class Prover:
    """Looks for what a build left. `builds` are all that run here, since two of them may share a step."""

    def __init__(self, engine: Engine, owner: str, builds: Callable[[], list[BuildKitBuild]]) -> None:
        self._engine = engine
        self._owner = owner
        self._builds = builds

    async def left_by(self, build: BuildKitBuild, traits: Traits) -> list[Execution]:
        """The steps of this build that still run."""
        found = await in_thread(lambda: executions(traits.root))
        if not found:
            return []
        others = [(each.key, each.progress.running()) for each in self._builds() if each is not build]
        return claim(found, [(build.key, build.progress.vertexes.values()), *others], build.key)

    async def buildkit(self, build: BuildKitBuild, traits: Traits) -> None:
        """Return once no process of the build is left. Raises `Unproven`."""
        if not build.asked:
            return
        if not traits.local:
            if build.heard:
                # An engine elsewhere: its own last word is all there is to have.
                return
            raise Unproven(f"the engine at {self._engine.connector.address} is not on this machine and did not confirm")
        left: list[Execution] = []
        settled = trio.current_time() + (0.0 if build.heard else SETTLE_SECONDS)
        with trio.move_on_after(PROOF_SECONDS):
            pause = 0.01
            while True:
                left = await self.left_by(build, traits)
                if not left and trio.current_time() >= settled:
                    return
                for each in left:
                    if each.orphan:
                        await in_thread(partial(_end, each.id))
                await trio.sleep(pause)
                pause = min(pause * 2, 0.5)
        what = "; ".join(f"`{each.command[:80]}` (cgroup {each.id}, pids {list(each.pids)})" for each in left)
        raise Unproven(f"the engine at {self._engine.connector.address} still runs {what or 'something'}")

    async def classic(self, build: ClassicBuild, traits: Traits) -> None:
        """Return once no container of the build is left. Raises `Unproven`."""
        if not build.asked:
            return
        left: set[str] = set(build.containers)
        why = ""
        settled = trio.current_time() + (0.0 if build.heard else SETTLE_SECONDS)
        with trio.move_on_after(PROOF_SECONDS):
            pause = 0.01
            while True:
                try:
                    marked = await intermediate(self._engine, self._owner)
                    left = {name for name, mark in marked.items() if mark == build.mark}
                    if not left and trio.current_time() >= settled:
                        return
                    # The engine takes its own away in a moment; what stays is taken away here.
                    if pause > 0.1:
                        for name in left:
                            await remove_container(self._engine, name)
                except (EngineLost, EngineRefused) as error:
                    why = str(error)
                    if traits.local and not await self._kill_lost(build.containers):
                        return
                await trio.sleep(pause)
                pause = min(pause * 2, 0.5)
        raise Unproven(f"containers of the build may be left: {', '.join(sorted(left)) or 'unknown'} {why}".strip())

    async def _kill_lost(self, containers: set[str]) -> dict[str, list[int]]:
        """The engine is gone: end what its containers run; answers what still lives."""
        for name in list(await in_thread(lambda: alive(containers))):
            await in_thread(partial(kill, name))
        return await in_thread(lambda: alive(containers))


def _end(name: str) -> None:
    kill(name)
    tidy(name)
