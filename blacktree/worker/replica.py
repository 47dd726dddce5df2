"""One replica: one task that keeps one container running, until it is told to end it.

Cancelling the task (the worker ends) leaves the container as it is: the next process of this worker adopts it.
"""

import random
from collections.abc import Callable

import msgspec
import structlog
import trio

from blacktree.clock import now
from blacktree.errors import BlacktreeError, EngineLost, StepFailed
from blacktree.providers.containers import Container
from blacktree.rpc.replica import Phase, ReplicaName, ReplicaOrder, ReplicaState
from blacktree.worker import replica_machine as machine
from blacktree.worker.clip import clip, clip_lines
from blacktree.worker.replica_logs import LogBook
from blacktree.worker.replica_machine import Ended, Progress
from blacktree.worker.replica_maker import Maker
from blacktree.worker.replica_output import Output
from blacktree.worker.replica_watch import Watch
from blacktree.worker.surroundings import Surroundings

log = structlog.get_logger()

ENGINE_AGAIN_SECONDS = 0.5
# What a state may say, so that those of many replicas fit in one message.
REASON_BYTES = 2000
LAST_BYTES = 8192


class Replica:
    """`run` it in a nursery; `end` it for good; read `state` at any time. `changed` is called whenever that did."""

    def __init__(
        self,
        order: ReplicaOrder,
        around: Surroundings,
        book: LogBook,
        changed: Callable[[], None],
        *,
        fresh: bool,
        adopted: Container | None = None,
        failed: ReplicaState | None = None,
    ) -> None:
        self.order = order
        self.book = book
        self.done = trio.Event()
        self.routed = False
        self.trouble = ""
        self._around = around
        self._changed = changed
        self._containers = around.containers
        self._fresh = trio.Event()
        self._adopted = adopted
        self._progress = Progress()
        self._since = now()
        self._container: Container | None = None
        self._last: Ended | None = None
        self._life = trio.CancelScope()
        self._ending: tuple[str, str] | None = None
        self._output = Output(order.name, around.containers, book, self._ready, self._is_over, changed)
        self._maker = Maker(around, lambda: self.order, self._known, adopted)
        self._hurry = False
        if adopted is not None:
            self._progress = Progress(restarts=max(0, self._maker.number - 1))
        if failed is not None:
            self._progress = Progress(phase="failed", restarts=failed.restarts, code=failed.code, reason=failed.reason)
            self._since = failed.since
            self._last = Ended(
                code=failed.code, reason=failed.reason, exit_code=failed.exit_code, oom_killed=failed.oom_killed
            )
            self.book.last_lines.extend(failed.last_lines)
        self.update(order, fresh=fresh)
        if fresh and adopted is None:
            # What is new and lacks one says so.
            self._fresh.set()

    @property
    def name(self) -> ReplicaName:
        return self.order.name

    @property
    def key(self) -> tuple[ReplicaName, int]:
        """The name and the generation."""
        return self.order.name, self.order.generation

    @property
    def runs(self) -> set[str]:
        """The marks of all containers that are, or may be about to be, this replica's."""
        return self._maker.runs

    @property
    def phase(self) -> Phase:
        return self._progress.phase

    @property
    def ports(self) -> dict[int, tuple[str, int]]:
        """Where its ports are reached while it is healthy, by the container's ports."""
        return self._container.ports if self.phase == "healthy" and self._container is not None else {}

    def update(self, order: ReplicaOrder, *, fresh: bool) -> None:
        """New orders for the same generation: only `serve`, logins and secrets can differ. `fresh` ones bear them."""
        if not order.secrets and self.order.secrets:
            # The orchestrator could not read its store just now: what we know still holds.
            order = msgspec.structs.replace(order, secrets=self.order.secrets)
        self.order = order
        # Without all of them it goes on waiting: neither is it started, nor is its output shown unmasked.
        whole = set(order.run.secrets) <= set(order.secrets)
        if fresh and whole and not self._fresh.is_set():
            self._fresh.set()
            if order.secrets:
                self.book.mask(order.secrets.values())

    def end(self, code: str = "", reason: str = "", *, at_once: bool = False) -> None:
        """Drain, stop, remove; `done` is set afterwards. `at_once`: without drain and grace."""
        self._hurry = self._hurry or at_once
        if self._ending is None:
            self._ending = (code, reason)
            self._life.cancel()

    @property
    def ending(self) -> bool:
        return self._ending is not None

    def state(self) -> ReplicaState:
        """As the orchestrator is told."""
        progress, last, container = self._progress, self._last, self._container
        ports = [port.container for port in self.order.run.ports]
        places = [container.ports[port] for port in ports if port in container.ports] if container else []
        reason = progress.reason or self.trouble
        code = progress.code or ("port_taken" if self.trouble else "")
        return ReplicaState(
            name=self.name,
            generation=self.order.generation,
            state=progress.phase,
            since=self._since,
            serving=self.routed and progress.phase == "healthy",
            container=container.id if container else "",
            exit_code=last.exit_code if last else None,
            oom_killed=last.oom_killed if last else False,
            restarts=progress.restarts,
            code=code[:64],
            reason=clip(self.book.mask_text(reason), REASON_BYTES),
            last_lines=clip_lines(self.book.last_lines, LAST_BYTES) if last is not None else [],
            address=f"{places[0][0]}:{places[0][1]}" if places else "",
        )

    async def run(self) -> None:
        """Keep it running; return once it was ended and nothing is left of it."""
        try:
            async with trio.open_nursery() as followers:
                with self._life:
                    await self._live(followers)
                await self._end()
                followers.cancel_scope.cancel()
        finally:
            self.done.set()
            self._changed()

    def _move(self, progress: Progress) -> None:
        before = self._progress
        self._progress = progress
        if progress.phase != before.phase:
            self._since = now()
            log.info("replica", name=repr(self.name), state=progress.phase, code=progress.code, reason=progress.reason)
        if (progress.phase, progress.reason) != (before.phase, before.reason):
            self._changed()

    async def _live(self, followers: trio.Nursery) -> None:
        while True:
            if self._progress.phase == "failed":
                await trio.sleep_forever()
            if self._progress.phase == "backing_off":
                await trio.sleep_until(self._progress.next_at)
            try:
                end = await self._try(followers)
            except Exception as error:
                # The edge of one replica: a fault of ours in it must not end the others, or any build.
                log.error("replica broke", name=repr(self.name), exc_info=error)
                end = Ended(code="internal", reason=f"the worker met an internal error: {error!r}; its log says more")
            self._last = end
            self._move(machine.ended(self._progress, trio.current_time(), self.order.run.restart, end, random.random()))
            if self.phase == "failed":
                # Nothing runs now; its last lines are told with it.
                self._changed()

    async def _try(self, followers: trio.Nursery) -> Ended:
        """One container, from its making to its end."""
        try:
            if self._adopted is not None:
                container, self._adopted = self._adopted, None
            else:
                self._move(machine.pulling(self._progress))
                container = await self._maker.make()
        except EngineLost as error:
            return Ended(code="engine_lost", reason=str(error), free=True)
        except StepFailed as error:
            return Ended(code=error.code, reason=str(error), fatal=not error.again)
        except (BlacktreeError, OSError) as error:
            return Ended(code=getattr(error, "code", "") or "start_failed", reason=str(error))
        self._container = container
        self._move(machine.started(self._progress, trio.current_time()))
        self._output.follow(followers, container.id, self._maker.number)
        try:
            watch = Watch(
                self.name, self.order.run, self._containers, self._checked, self._was_healthy, self._engine_away
            )
            end = await watch.run(container)
            await self._output.heard_out(container.id)
            return end
        finally:
            if self._ending is None:
                self._container = None
                self._maker.ended(container.id)

    def _checked(self, ok: bool, why: str) -> Ended | None:
        """A check was made: see `replica_machine.checked`."""
        at, health = trio.current_time(), self.order.run.health
        progress, end = machine.checked(self._progress, at, health, ok=ok, why=why)
        self._move(progress)
        return end

    def _was_healthy(self) -> bool:
        return self._progress.was_healthy

    def _engine_away(self) -> None:
        """It cannot be reached, and does not count as healthy: nothing is switched to it before it answers again."""
        if self.phase == "healthy":
            self._move(msgspec.structs.replace(self._progress, phase="starting", reason="its engine is away"))

    async def _ready(self) -> None:
        if self.order.run.secrets:
            await self._fresh.wait()  # what must not show is not known before

    def _is_over(self, container: str) -> bool:
        return self._container is None or self._container.id != container or self._ending is not None

    async def _known(self) -> None:
        """Logins and secrets are not kept on disk: after a restart of the worker they are waited for."""
        if not self._fresh.is_set():
            self._move(msgspec.structs.replace(self._progress, reason="waits for the orchestrator: it has the secrets"))
            await self._fresh.wait()

    async def _end(self) -> None:
        """Out of the fronts, connections drained, container stopped, everything removed."""
        code, reason = self._ending or ("", "")
        strategy = self.order.run.strategy
        self._move(msgspec.structs.replace(self._progress, phase="stopping", code=code, reason=reason))
        container = self._container or self._adopted
        if container is not None and not self._hurry:
            with trio.move_on_after(strategy.drain_seconds):
                await self._around.traffic.none(self.key)
        while True:
            try:
                if container is not None:
                    await self._containers.stop(container.id, 0 if self._hurry else strategy.stop_seconds)
                    if (ended := await self._containers.inspect(container.id)) is not None:
                        end = machine.exit_end(
                            ended.exit_code, ended.oom_killed, ended.error, self.order.run.memory_bytes
                        )
                        self._last = end
                    await self._output.heard_out(container.id)
                await self._maker.clear(container.id if container is not None else "")
                break
            except BlacktreeError as error:
                log.warning("a replica cannot be stopped yet", name=repr(self.name), reason=str(error))
                await trio.sleep(ENGINE_AGAIN_SECONDS)
        await self._maker.forget()
        self._container = None
        self._move(msgspec.structs.replace(self._progress, phase="stopped"))
