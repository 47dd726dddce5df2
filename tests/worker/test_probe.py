"""One health check: what says something of the replica, and what does not."""

import pytest
import trio

from blacktree.errors import StepFailed
from blacktree.providers.containers import Container, Ran
from blacktree.providers.scripted_containers import ScriptedContainers
from blacktree.runspec import Health
from blacktree.worker.probe import Unasked, probe

HEALTH = Health(command=["true"])


class Unwilling(ScriptedContainers):
    """An engine that lives and refuses to run anything."""

    async def run(self, container: str, argv: list[str], seconds: float) -> Ran:
        await trio.lowlevel.checkpoint()
        raise StepFailed("exec: the engine says 500: cannot allocate memory", code="exec_failed", again=False)


async def test_an_engine_that_refuses_to_run_the_check_says_nothing_of_the_replica() -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(Unasked, match="cannot allocate"):
            await probe(HEALTH, Container(id="a", labels={}, state="running"), Unwilling(nursery))
