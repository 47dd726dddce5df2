"""Reading a deployment's log as it grows and its state as it changes, across lost connections and restarts."""

from typing import Any

import msgspec

from blacktree.client.link import Incoming, Lost, told
from blacktree.client.watch import Batch, JobWatch
from blacktree.errors import Unavailable


class _Begun(msgspec.Struct, frozen=True):
    watch: int
    first_seq: int
    deployment: dict[str, Any]


class _Events(msgspec.Struct, frozen=True):
    watch: int
    events: msgspec.Raw


class _Changed(msgspec.Struct, frozen=True):
    watch: int
    deployment: dict[str, Any]


class DeploymentWatch(JobWatch):
    """`async for batch in watch`: without end; a batch without events says that `deployment` has changed.

    Events that were dropped before they were read are passed over. Raises as `JobWatch`.
    """

    deployment: dict[str, Any]

    async def open(self) -> None:
        """Connect and begin, unless that is done already."""
        while self._link is None or not self._link.usable:
            try:
                self._link = await self._endpoint.open(self._nursery)
                result = await self._link.ask("deployment.watch", {"name": self._id, "from_seq": self.next_seq})
            except Lost as lost:
                await self._lose(str(lost))
            except Unavailable as error:
                if not error.again:
                    raise
                await self._lose(error.message)
            else:
                begun = msgspec.json.decode(result, type=_Begun)
                self.deployment = begun.deployment
                self.next_seq = max(self.next_seq, begun.first_seq)
                self._outage.over()

    async def _understand(self, message: Incoming) -> Batch | None:
        if message.method == "deployment.events":
            return await self._events(msgspec.json.decode(message.params, type=_Events).events)
        if message.method == "deployment.changed":
            self.deployment = msgspec.json.decode(message.params, type=_Changed).deployment
            return Batch([])
        if message.method == "watch.failed":
            failure = told(msgspec.json.decode(message.params)["error"])
            if not failure.again:
                raise failure
            await self._lose(failure.message)
        return None
