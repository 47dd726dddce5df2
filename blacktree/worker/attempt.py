"""`Attempt`: one attempt of a job as this worker holds it: its scope, its orders, its outbox, its publish grant."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import trio

from blacktree.errors import StepFailed
from blacktree.rpc.peer import Assignment, AttemptName
from blacktree.services.core.context import Grant
from blacktree.worker.bell import Bell
from blacktree.worker.lease import boottime
from blacktree.worker.outbox import Outbox

# Which order wins when several arrive: what someone asked for beats what happens to everybody.
RANK = {"": 0, "shutdown": 1, "timed_out": 2, "canceled": 3, "fenced": 4}
ASK_AGAIN_SECONDS = 0.25
# Of a grant that was asked for ahead: with less left than this it is asked for anew.
ENOUGH_SECONDS = 2.0


class Attempt:
    """Made when the worker accepts; forgotten when its outcome is stored."""

    def __init__(self, assignment: Assignment, outbox: Outbox, bell: Bell) -> None:
        self.assignment = assignment
        self.name: AttemptName = assignment.name
        self.outbox = outbox
        self.scope = trio.CancelScope()
        self.why = ""
        self.reason = ""
        self.building = True
        self._bell = bell
        self._wants = False
        self._granted_until = 0.0
        self._granted = trio.Event()
        self._withheld: frozenset[str] = frozenset()
        self.references: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, int]:
        return self.name.job_id, self.name.attempt

    def stop(self, why: str, reason: str = "") -> None:
        """Order its end. Repeatable; the stronger order wins."""
        if RANK.get(why, 1) > RANK[self.why]:
            self.why, self.reason = (why if why in RANK else "shutdown"), reason
        if self.why == "fenced":
            self.outbox.discard()
            self._granted.set()
        self.scope.cancel()

    @property
    def wants_publish(self) -> bool:
        """Whether the next report asks for the grant."""
        return self._wants and not self._granted.is_set()

    def grant(self, until: float, withheld: Collection[str] = ()) -> None:
        """Names may be moved until then (CLOCK_BOOTTIME), but for these."""
        if self._wants and self.why != "fenced":
            self._granted_until = until
            self._withheld = frozenset(withheld)
            self._granted.set()

    def expect(self, references: Collection[str]) -> None:
        """A hint: `publishing` will soon be entered with these names. The grant is asked for now and waits there."""
        if not self._wants:
            self._ask(references)

    @asynccontextmanager
    async def publishing(self, references: Collection[str] = ()) -> AsyncIterator[Grant]:
        """Entered while a publish grant holds; what runs inside is finished once begun, cancelled or not, unless the
        grant ends first: then `StepFailed` (code `publish_expired`, again=True). One at a time."""
        try:
            if self._wants and self.references != tuple(references):
                # What is on its way is the answer to other names.
                await self._wait_for_grant()
                self._wants = False
            if not self._wants or (self._granted.is_set() and self._left() < ENOUGH_SECONDS):
                self._ask(references)
            await self._wait_for_grant()
            left = self._left()
            if self.why == "fenced" or left <= 0:
                raise _expired()
            # Half-moved names are worse than a late cancel: the grant's end bounds it.
            with trio.move_on_after(left, shield=True) as scope:
                yield Grant(withheld=self._withheld, check=self._check)
            if scope.cancelled_caught:
                raise _expired()
        finally:
            self._wants = False
            self.references = ()

    def _ask(self, references: Collection[str]) -> None:
        self._wants = True
        self._granted = trio.Event()
        self.references = tuple(references)
        self._bell.ring_urgently()

    def _left(self) -> float:
        """Seconds until the grant is over."""
        return self._granted_until - boottime()

    def _check(self) -> None:
        if self.why == "fenced" or self._left() <= 0:
            raise _expired()

    async def _wait_for_grant(self) -> None:
        while not self._granted.is_set():
            with trio.move_on_after(ASK_AGAIN_SECONDS):
                await self._granted.wait()
            if not self._granted.is_set():
                self._bell.ring()


def _expired() -> StepFailed:
    return StepFailed(
        "the permission to set names ended before they were set",
        code="publish_expired",
        again=True,
        advice="is the registry or the engine slow? the job is tried again",
    )
