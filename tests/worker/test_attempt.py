"""The publish grant as an attempt holds it: asked for when wanted or ahead of that, used once, never beyond its end."""

from pathlib import Path

import pytest
import trio
import trio.testing

from blacktree.errors import StepFailed
from blacktree.worker.attempt import Attempt
from blacktree.worker.bell import Bell
from blacktree.worker.lease import boottime
from blacktree.worker.outbox import Outbox
from blacktree.worker.spool import Spool, SpoolBudget
from tests.parts.orchestrator_side import an_assignment

NAMES = ("registry.example/app:1", "registry.example/app:latest")
LONG = 1000.0


def an_attempt(directory: Path) -> Attempt:
    bell = Bell()
    outbox = Outbox(bell, Spool(directory, SpoolBudget(1 << 20)), attempt=1)
    return Attempt(an_assignment(), outbox, bell)


async def test_what_was_asked_for_ahead_is_there_when_it_is_wanted(tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path)
    attempt.expect(NAMES)
    assert (attempt.wants_publish, attempt.references) == (True, NAMES)
    attempt.grant(boottime() + LONG, [NAMES[1]])
    assert not attempt.wants_publish
    async with attempt.publishing(NAMES) as grant:
        assert grant.withheld == {NAMES[1]}
        grant.check()
    # Used once: the next one is asked for anew.
    await _asks_anew(attempt, NAMES)


async def test_one_that_is_still_on_its_way_is_waited_for_and_not_asked_for_twice(tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path)
    attempt.expect(NAMES)
    attempt.expect(NAMES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_publishes, attempt, NAMES)
        await trio.testing.wait_all_tasks_blocked()
        attempt.grant(boottime() + LONG)
    assert not attempt.wants_publish


async def test_one_that_is_nearly_over_is_asked_for_anew(tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path)
    attempt.expect(NAMES)
    attempt.grant(boottime() - 1)
    await _asks_anew(attempt, NAMES)


async def test_the_answer_to_other_names_is_no_grant_for_these(tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path)
    attempt.expect(NAMES[:1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_publishes, attempt, NAMES)
        await trio.testing.wait_all_tasks_blocked()
        # The first names' answer is on its way, and may be about them only.
        assert attempt.references == NAMES[:1]
        attempt.grant(boottime() + LONG)
        await trio.testing.wait_all_tasks_blocked()
        assert (attempt.wants_publish, attempt.references) == (True, NAMES)
        attempt.grant(boottime() + LONG)


async def test_a_fenced_attempt_publishes_nothing_that_it_was_granted_ahead(tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path)
    attempt.expect(NAMES)
    attempt.grant(boottime() + LONG)
    attempt.stop("fenced")
    with pytest.raises(StepFailed) as caught:
        await _publishes(attempt, NAMES)
    assert caught.value.code == "publish_expired"


async def _publishes(attempt: Attempt, names: tuple[str, ...]) -> None:
    async with attempt.publishing(names) as grant:
        grant.check()


async def _asks_anew(attempt: Attempt, names: tuple[str, ...]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_publishes, attempt, names)
        await trio.testing.wait_all_tasks_blocked()
        assert (attempt.wants_publish, attempt.references) == (True, names)
        attempt.grant(boottime() + LONG)
