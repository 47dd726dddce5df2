"""Declared targets of notifications: those of the configuration file, and those on record; all of them in memory."""

from collections.abc import Mapping
from typing import Any

import msgspec
import structlog

from blacktree.errors import BadRequest, Conflict, NotFound
from blacktree.notification import MAXIMUM_TARGETS, Target, checked, target_from
from blacktree.storage.base import DocumentTable
from blacktree.strict import UNREADABLE, nearest

KIND = "notify"

log = structlog.get_logger()


class Targets:
    """`every`: a tuple that is replaced as a whole, so that the store's thread may look at it at any moment."""

    def __init__(self, documents: DocumentTable, configured: Mapping[str, Target]) -> None:
        self._documents = documents
        self._configured = dict(configured)
        self._stored: dict[str, Target] = {}
        self.every: tuple[Target, ...] = ()
        self._changed()

    async def load(self) -> None:
        """From the record; to be called once, before anything is asked."""
        for name, body in await self._documents.documents(KIND):
            try:
                self._stored[name] = msgspec.json.decode(body, type=Target)
            except UNREADABLE as error:
                # One target less, and the farm starts; it can be removed or declared anew.
                log.error("a target's record is damaged", target=name, reason=str(error))
        self._changed()

    def find(self, name: str) -> Target | None:
        """The target, if it is (still) there."""
        return self._configured.get(name) or self._stored.get(name)

    def get(self, name: str) -> Target:
        """Raises `NotFound`."""
        if (target := self.find(name)) is not None:
            return target
        guess = nearest(name, [target.name for target in self.every])
        advice = f"did you mean `{guess}`?" if guess else "`blacktree notify list` shows them"
        raise NotFound(f"there is no target {name[:100]!r}", advice=advice)

    def is_configured(self, name: str) -> bool:
        """Whether it is in the configuration file."""
        return name in self._configured

    async def add(self, target: Target) -> None:
        """See `NotifyControl.add`."""
        checked(target)
        if len(self.every) >= MAXIMUM_TARGETS:
            raise Conflict(f"there are {MAXIMUM_TARGETS} targets already", advice="remove one that is not needed")
        body = msgspec.json.encode(target)

        def decide(before: bytes | None) -> bytes:
            if target.name in self._configured or (before is not None and target.name in self._stored):
                raise Conflict(
                    f"there is a target {target.name} already",
                    advice=f"change it with `blacktree notify edit {target.name}`, or choose another name",
                )
            return body

        await self._documents.revise(KIND, target.name, decide)
        self._stored[target.name] = target
        self._changed()

    async def edit(self, name: str, changes: dict[str, Any]) -> Target:
        """See `NotifyControl.edit`."""
        self._check_own(name)
        if changes.get("name", name) != name:
            raise BadRequest("target.name: a target keeps its name", path="target.name", code="invalid")
        edited = target_from({**msgspec.to_builtins(self.get(name)), **changes})
        body = msgspec.json.encode(edited)
        await self._documents.revise(KIND, name, lambda before: body)
        self._stored[name] = edited
        self._changed()
        return edited

    async def remove(self, name: str) -> Target:
        """See `NotifyControl.remove`."""
        self._check_own(name)
        was = self.get(name)
        await self._documents.revise(KIND, name, lambda before: None)
        self._stored.pop(name, None)
        self._changed()
        return was

    def _changed(self) -> None:
        self.every = tuple(each for _, each in sorted((self._stored | self._configured).items()))

    def _check_own(self, name: str) -> None:
        self.get(name)
        if name in self._configured:
            raise Conflict(
                f"target {name} is in the configuration file",
                code="target_configured",
                advice="change it there, and restart the orchestrator",
            )
