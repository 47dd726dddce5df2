"""The worker's count of its lease, and the pace at which it speaks."""

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from blacktree.worker.bell import COMPANY_SECONDS, FULL_BYTES, PACE_SECONDS, URGENT_PACE_SECONDS, Bell
from blacktree.worker.lease import Lease
from blacktree.worker.link import pause


@given(seconds=st.floats(1, 3600), sent=st.floats(1, 1e7))
def test_builds_stop_before_the_kill_and_the_kill_comes_before_the_end(seconds: float, sent: float) -> None:
    lease = Lease()
    assert not lease.holds(sent)
    lease.renew(sent, seconds)
    assert sent < lease.stop_at < lease.kill_at < lease.ends
    # A heartbeat that is missed leaves time for another before builds are stopped.
    assert lease.stop_at - sent >= 1.99 * lease.heartbeat_seconds
    assert lease.holds(sent)
    assert not lease.holds(lease.stop_at)
    assert lease.over(lease.ends)


def test_an_older_contact_changes_nothing() -> None:
    lease = Lease()
    lease.renew(100.0, 30.0)
    lease.renew(90.0)
    assert lease.ends == 130.0


def test_a_long_lease_is_used_nearly_to_its_end() -> None:
    lease = Lease()
    lease.renew(1000.0, 3600.0)
    assert (lease.stop_at, lease.kill_at, lease.ends) == (4585.0, 4597.0, 4600.0)


@given(failures=st.integers(0, 10_000), longest=st.floats(0.1, 60))
def test_a_pause_is_bounded_and_never_nothing(failures: int, longest: float) -> None:
    assert 0 < pause(failures, longest) <= longest


async def _heard(bell: Bell) -> float:
    began = trio.current_time()
    await bell.hear(10.0)
    return trio.current_time() - began


async def test_the_first_word_after_a_silence_leaves_at_once(autojump_clock: trio.testing.MockClock) -> None:
    bell = Bell()
    bell.ring(10)
    assert await _heard(bell) == pytest.approx(COMPANY_SECONDS)
    bell.ring(10)
    assert await _heard(bell) == pytest.approx(PACE_SECONDS)


async def test_what_is_urgent_or_much_does_not_wait(autojump_clock: trio.testing.MockClock) -> None:
    bell = Bell()
    bell.ring(10)
    await bell.hear(10.0)
    bell.ring_urgently()
    assert await _heard(bell) == pytest.approx(URGENT_PACE_SECONDS)
    bell.ring(FULL_BYTES)
    assert await _heard(bell) == 0
    await trio.sleep(1)
    bell.ring_urgently()
    assert await _heard(bell) == 0


async def test_silence_ends_with_the_heartbeat(autojump_clock: trio.testing.MockClock) -> None:
    assert await _heard(Bell()) == pytest.approx(10.0)
