"""`NotifyDesk`: the answer to what the doors ask about notifications (`orchestrator.notifycontrol.NotifyControl`)."""

from typing import Any

from blacktree.notification import Target
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.notifier import Notifier
from blacktree.orchestrator.notifycontrol import TargetView, Tried
from blacktree.orchestrator.targets import Targets


class NotifyDesk:
    """Targets on one side, who serves them on the other."""

    def __init__(self, targets: Targets, notifier: Notifier, chronicle: Chronicle) -> None:
        self._targets = targets
        self._notifier = notifier
        self._chronicle = chronicle

    async def add(self, target: Target, *, actor: str = "") -> TargetView:
        """See `NotifyControl.add`."""
        await self._targets.add(target)
        self._notifier.changed(target)
        self._tell("target_added", target, "added", actor)
        return self.get(target.name)

    async def edit(self, name: str, changes: dict[str, Any], *, actor: str = "") -> TargetView:
        """See `NotifyControl.edit`."""
        target = await self._targets.edit(name, changes)
        self._notifier.changed(target)
        self._tell("target_edited", target, "changed", actor)
        return self.get(name)

    async def remove(self, name: str, *, actor: str = "") -> TargetView:
        """See `NotifyControl.remove`."""
        view = self.get(name)
        await self._targets.remove(name)
        await self._notifier.removed(name)
        self._tell("target_removed", view.target, "removed", actor)
        return view

    def get(self, name: str) -> TargetView:
        """See `NotifyControl.get`."""
        target = self._targets.get(name)
        lane = self._notifier.lanes.get(name)
        return TargetView(
            target=target,
            configured=self._targets.is_configured(name),
            waiting=len(lane.waiting) if lane is not None else 0,
            failures=lane.failures if lane is not None else 0,
        )

    def all(self) -> list[TargetView]:
        """See `NotifyControl.all`."""
        return [self.get(target.name) for target in self._targets.every]

    def tried(self, name: str) -> list[Tried]:
        """See `NotifyControl.tried`."""
        self._targets.get(name)
        lane = self._notifier.lanes.get(name)
        return list(reversed(lane.tried)) if lane is not None else []

    async def test(self, name: str, *, actor: str = "") -> Tried:
        """See `NotifyControl.test`."""
        return await self._notifier.test(self._targets.get(name))

    def _tell(self, type: str, target: Target, what: str, actor: str) -> None:
        self._chronicle.note(type, f"target {target.name} was {what} by {actor or 'somebody'}", subject=target.name)
