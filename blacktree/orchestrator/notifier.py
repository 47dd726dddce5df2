"""`Notifier`: brings notifications to their targets, at least once each, with the same id, over any restart.

A row of the outbox (committed with the change that it tells) becomes a document for each target that it is for, and
then goes; the document goes when its target has taken the message, or never will.
"""

from contextlib import suppress
from functools import partial

import msgspec
import structlog
import trio

from blacktree.clock import new_id, now, rfc3339
from blacktree.errors import StorageFailed
from blacktree.histogram import QUICK, Spread
from blacktree.notification import TEST_EVENT, Target
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.herald import Event
from blacktree.orchestrator.lane import Lane, Waiting
from blacktree.orchestrator.notifycontrol import Tried
from blacktree.orchestrator.rows import Rows
from blacktree.orchestrator.sender import Sender, is_final, refuses_this_one, trouble
from blacktree.orchestrator.statuswords import Later, Refused, backoff_seconds
from blacktree.orchestrator.targets import Targets
from blacktree.orchestrator.vaulted import Vaulted
from blacktree.storage.base import Store
from blacktree.strict import UNREADABLE

KIND = "notification"
LOG_KIND = "notify-log"
SAVE_SECONDS = 1.0
STORE_SECONDS = 1.0

log = structlog.get_logger()


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A message for one target, on record until it is taken. `at`: seconds since 1970."""

    target: str
    id: str
    type: str
    at: float
    body: msgspec.Raw


class Notifier:
    """One lane a target, each in a task of its own: a slow one keeps nobody else waiting."""

    def __init__(
        self,
        store: Store,
        targets: Targets,
        vault: Vaulted,
        chronicle: Chronicle,
        *,
        first_seconds: float,
        limit_seconds: float,
        patience_seconds: float,
        maximum_waiting: int,
    ) -> None:
        self._store = store
        self._targets = targets
        self._chronicle = chronicle
        self._first_seconds = first_seconds
        self._limit_seconds = limit_seconds
        self._patience_seconds = patience_seconds
        self._maximum_waiting = maximum_waiting
        self._sender = Sender(vault)
        self.rows = Rows(store, self._keep, self._enter)
        self._nursery: trio.Nursery | None = None
        self.lanes: dict[str, Lane] = {}
        self.results: dict[tuple[str, str], int] = {}
        self.seconds = Spread(QUICK)

    # What comes

    async def load(self) -> None:
        """What an earlier life left. To be called once, after the targets are loaded."""
        for target in self._targets.every:
            self._lane(target)
        after = ""
        while page := await self._store.documents(KIND, after=after):
            after = page[-1][0]
            for name, body in page:
                await self._find(name, body)
        for name, body in await self._store.documents(LOG_KIND):
            if name in self.lanes:
                with suppress(*UNREADABLE):
                    self.lanes[name].tried.extend(msgspec.json.decode(body, type=list[Tried]))

    async def _find(self, name: str, body: bytes) -> None:
        try:
            kept = msgspec.json.decode(body, type=Kept)
        except UNREADABLE as error:
            log.error("a notification's record is damaged", name=name, reason=str(error))
            return
        if (lane := self.lanes.get(kept.target)) is None:
            await self._store.revise(KIND, name, lambda before: None)
            return
        age = now().timestamp() - kept.at
        lane.put(Waiting(kept.id, name, kept.type, trio.current_time() - max(0.0, age)))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take rows and deliver them, until cancelled; begins with what an earlier life left."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for lane in self.lanes.values():
                    nursery.start_soon(self._serve, lane, name=f"notify {lane.target.name}")
                await nursery.start(self.rows.run)
                task_status.started()
                while True:
                    await trio.sleep(SAVE_SECONDS)
                    await self._save()
        finally:
            self._nursery = None
            with trio.move_on_after(1, shield=True):
                await self._save()
                await self._sender.aclose()

    async def _keep(self, event: Event) -> None:
        """A document for each target that is still there. Raises `StorageFailed`."""
        for target in event.targets:
            if target in self.lanes:
                kept = Kept(target=target, id=event.id, type=event.type, at=now().timestamp(), body=event.body)
                body = msgspec.json.encode(kept)
                await self._store.revise(KIND, _document(target, event.id), partial(_unless_there, body))

    async def _enter(self, event: Event) -> None:
        """Into the lanes, in the order of the changes. Raises `StorageFailed`."""
        for target in event.targets:
            name = _document(target, event.id)
            if (lane := self.lanes.get(target)) is None:
                await self._store.revise(KIND, name, lambda before: None)
                continue
            lane.put(Waiting(event.id, name, event.type, trio.current_time()))
            if len(lane.waiting) > self._maximum_waiting:
                quiet, lane.overfull = lane.overfull, True
                await self._give_up(lane, lane.oldest(), "too many wait", quiet=quiet)

    # Targets come and go

    def _lane(self, target: Target) -> Lane:
        lane = self.lanes.get(target.name)
        if lane is None:
            lane = self.lanes[target.name] = Lane(target)
            if self._nursery is not None:
                self._nursery.start_soon(self._serve, lane, name=f"notify {target.name}")
        return lane

    def changed(self, target: Target) -> None:
        """A target was added or edited."""
        lane = self._lane(target)
        lane.target = target
        lane.again()

    async def removed(self, name: str) -> None:
        """A target was removed: what waits for it goes too."""
        lane = self.lanes.pop(name, None)
        if lane is None:
            return
        lane.gone = True
        lane.stir()
        await self._store.revise(LOG_KIND, name, lambda before: None)
        for message in list(lane.waiting.values()):
            await self._store.revise(KIND, message.name, lambda before: None)
        lane.waiting.clear()

    # What goes

    async def _serve(self, lane: Lane) -> None:
        while not lane.gone:
            lane.wake = trio.Event()
            message, until = lane.next(trio.current_time()) if not lane.target.paused else (None, float("inf"))
            if message is None:
                with trio.move_on_at(until):
                    await lane.wake.wait()
                continue
            try:
                lane.sending = message
                await self._deliver(lane, message)
            except StorageFailed as error:
                log.error("notification waits for the store", target=lane.target.name, reason=str(error))
                await trio.sleep(STORE_SECONDS)
            except Exception as error:
                # The edge of one message: whatever its target answers, the farm goes on.
                log.exception("notification_failed", target=lane.target.name)
                self._postpone(lane, message, alone=True)
                self._note(lane, message, 0, 0.0, "failed", type(error).__name__)
            finally:
                lane.sending = None

    async def _deliver(self, lane: Lane, message: Waiting) -> None:
        document = await self._store.document(KIND, message.name)
        if document is None:
            lane.waiting.pop(message.id, None)
            return
        kept = msgspec.json.decode(document, type=Kept)
        began, status, error, alone, final = trio.current_time(), 0, "", False, False
        try:
            status, said = await self._sender.send(lane.target, kept.id, bytes(kept.body))
            error, alone, final = trouble(status, said), refuses_this_one(status), is_final(status)
        except Later as later:
            error = str(later)
        except Refused as refused:
            error, alone = str(refused), True
        seconds = trio.current_time() - began
        self.seconds.observe(seconds, lane.target.name)
        if lane.gone:
            return
        if not error:
            self._note(lane, message, status, seconds, "delivered", "")
            lane.failures, lane.overfull = 0, False
            await self._drop(lane, message)
        elif final or trio.current_time() - message.since > self._patience_seconds:
            self._note(lane, message, status, seconds, "given_up", error)
            await self._give_up(lane, message, error)
        else:
            self._postpone(lane, message, alone=alone)
            self._note(lane, message, status, seconds, "failed", error)

    def _postpone(self, lane: Lane, message: Waiting, *, alone: bool) -> None:
        message.failures += 1
        time = trio.current_time()
        if alone:
            message.due = time + backoff_seconds(message.failures, self._first_seconds, self._limit_seconds)
        else:
            lane.failures += 1
            lane.resume = time + backoff_seconds(lane.failures, self._first_seconds, self._limit_seconds)

    async def test(self, target: Target) -> Tried:
        """One message now, once, whatever waits."""
        moment, id = now(), f"msg_{new_id()}"
        value = {"type": TEST_EVENT, "timestamp": rfc3339(moment), "data": {"target": target.name}}
        began, status, error = trio.current_time(), 0, ""
        try:
            status, said = await self._sender.send(target, id, msgspec.json.encode(value))
            error = trouble(status, said)
        except (Later, Refused) as why:
            error = str(why)
        message = Waiting(id, "", TEST_EVENT, began)
        result = "failed" if error else "delivered"
        return self._note(self._lane(target), message, status, trio.current_time() - began, result, error)

    def _note(self, lane: Lane, message: Waiting, status: int, seconds: float, result: str, error: str) -> Tried:
        attempt = max(1, message.failures + (result != "failed"))
        tried = Tried(
            id=message.id,
            type=message.type,
            at=now(),
            result=result,
            attempt=attempt,
            status=status,
            seconds=round(seconds, 6),
            error=error[:500],
        )
        lane.tried.append(tried)
        lane.unsaved = True
        key = (lane.target.name, result)
        self.results[key] = self.results.get(key, 0) + 1
        if error:
            log.info("notification not taken", target=lane.target.name, id=message.id, reason=error[:200])
        return tried

    async def _give_up(self, lane: Lane, message: Waiting, why: str, *, quiet: bool = False) -> None:
        if not quiet:
            text = f"target {lane.target.name} was not told of {message.type} ({message.id}): {why}"
            self._chronicle.note("notification_given_up", text, subject=lane.target.name)
        await self._drop(lane, message)

    async def _drop(self, lane: Lane, message: Waiting) -> None:
        # First, for others look meanwhile. A record that cannot be removed now is delivered once more by the next life.
        lane.waiting.pop(message.id, None)
        await self._store.revise(KIND, message.name, lambda before: None)

    # The log of deliveries

    async def _save(self) -> None:
        for name, lane in list(self.lanes.items()):
            if lane.unsaved and not lane.gone:
                lane.unsaved = False
                body = msgspec.json.encode(list(lane.tried))
                try:
                    await self._store.revise(LOG_KIND, name, partial(_instead, body))
                except StorageFailed as error:
                    lane.unsaved = True
                    log.info("delivery log not saved", target=name, reason=str(error))

    def figures(self) -> dict[str, object]:
        """For `/metrics`."""
        return {
            "notifications_total": dict(self.results),
            "notifications_waiting": {name: len(lane.waiting) for name, lane in self.lanes.items()},
            "notification_duration_seconds": self.seconds.parts,
        }


def _document(target: str, id: str) -> str:
    return f"{target}/{id}"


def _unless_there(body: bytes, before: bytes | None) -> bytes:
    return before or body


def _instead(body: bytes, before: bytes | None) -> bytes:
    return body
