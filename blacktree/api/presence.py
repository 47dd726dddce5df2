"""Whoever has a websocket open, so that it ends when its token does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from blacktree.api.auth import Actor, Auth
from blacktree.clock import now
from blacktree.orchestrator.tokencontrol import TokenControl

_LONGEST_SLEEP = 60.0


class Presence:
    """Looks at everybody present whenever a token was revoked."""

    def __init__(self, auth: Auth, tokens: TokenControl) -> None:
        self._auth = auth
        self._tokens = tokens
        self._present: dict[int, tuple[Actor, Callable[[], None]]] = {}
        self._issued = 0

    @contextmanager
    def entered(self, actor: Actor, end: Callable[[], None]) -> Iterator[None]:
        """Present while this lasts; `end` is called (at once, if it must be) when the token is good no longer."""
        self._issued = number = self._issued + 1
        self._present[number] = (actor, end)
        try:
            if not self._auth.holds(actor):
                end()
            yield
        finally:
            self._present.pop(number, None)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        task_status.started()
        version = 0
        while True:
            version = await self._tokens.wait_changed(version)
            for number, (actor, end) in list(self._present.items()):
                if not self._auth.holds(actor):
                    self._present.pop(number, None)
                    end()

    def expires(self, actor: Actor) -> bool:
        """Whether the clock alone will end this."""
        token = self._auth.token(actor.token)
        return actor.until is not None or token is None or token.expires_at is not None

    async def wait_expired(self, actor: Actor) -> None:
        """Until the actor's session or token is over by the clock; without an end, for ever."""
        while self._auth.holds(actor):
            token = self._auth.token(actor.token)
            ends = [] if actor.until is None else [actor.until]
            if token is not None and token.expires_at is not None:
                ends.append(token.expires_at.timestamp())
            if not ends:
                await trio.sleep_forever()
            # The wall clock may be set: look again now and then.
            await trio.sleep(max(0.01, min(min(ends) - now().timestamp(), _LONGEST_SLEEP)))
