"""`Hooks`: a webhook is proven by its signature, read, put on record and answered; its work is done afterwards."""

import secrets
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from blacktree.concurrency.threads import in_loose_thread
from blacktree.errors import BlacktreeError, NotAllowed, NotFound, Unavailable
from blacktree.orchestrator.deliveries import Deliveries, keys_of
from blacktree.orchestrator.forges import FORGES
from blacktree.orchestrator.forges.base import Event, ForgeAdapter, Nothing, PullRequest, Pushed, payload
from blacktree.orchestrator.forges.signatures import wrong
from blacktree.orchestrator.hookcontrol import Delivery, Receipt
from blacktree.orchestrator.hookwork import HookWork
from blacktree.orchestrator.matching import choose
from blacktree.orchestrator.sources import Sources
from blacktree.orchestrator.vaulted import Vaulted
from blacktree.secret import SecretKind
from blacktree.source import Source

log = structlog.get_logger()

MOST_WAITING = 20_000
MOST_SECRETS = 64
LARGE_BYTES = 256 * 1024
ENTER_SECONDS = 20.0


class Hooks:
    """See `HookControl`."""

    def __init__(
        self,
        sources: Sources,
        deliveries: Deliveries,
        vault: Vaulted,
        work: HookWork,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sources = sources
        self._deliveries = deliveries
        self._vault = vault
        self._work = work
        self._clock = clock
        self.counts: dict[str, int] = {}

    async def receive(self, delivery: Delivery) -> Receipt:
        """See `HookControl.receive`."""
        try:
            receipt = await self._receive(delivery)
        except BlacktreeError as error:
            self.counts[error.code] = self.counts.get(error.code, 0) + 1
            log.info("webhook refused", forge=delivery.forge[:20], code=error.code)
            raise
        self.counts[receipt.status] = self.counts.get(receipt.status, 0) + 1
        log.debug("webhook", forge=delivery.forge, status=receipt.status, reason=receipt.reason)
        return receipt

    async def _receive(self, delivery: Delivery) -> Receipt:
        adapter = FORGES.get(delivery.forge)
        if adapter is None:
            raise NotFound(f"there are no webhooks of {delivery.forge[:40]!r}", advice=f"known: {', '.join(FORGES)}")
        sources = await self._proven(adapter, delivery)
        named = adapter.delivery_id(delivery.headers)
        signed = delivery.forge != "gitlab"
        keys = keys_of(delivery.forge, named, delivery.body, body_is_signed=signed)
        if (earlier := await self._deliveries.earlier(keys)) is not None:
            return Receipt(status="known", delivery=earlier, reason="this delivery came before; nothing was changed")
        event = await self._read(adapter, delivery)
        if isinstance(event, Nothing):
            return Receipt(status="pong" if event.ping else "ignored", reason=event.reason)
        chosen, reason = choose(sources, event)
        if not chosen:
            return Receipt(status="ignored", reason=reason)
        if self._work.waiting >= MOST_WAITING or not self._work.open:
            raise Unavailable(f"{self._work.waiting} webhooks wait already", code="too_many_deliveries")
        names = [source.name for source in chosen]

        async def enter() -> Receipt:
            # Between the last look and this there may have been others.
            if (earlier := await self._deliveries.earlier(keys)) is not None:
                return Receipt(
                    status="known", delivery=earlier, reason="this delivery came before; nothing was changed"
                )
            entry = await self._deliveries.enter(
                forge=delivery.forge,
                delivery=named[:200],
                identity=keys[0],
                keys=keys,
                sources=names,
                event=_trimmed(event),
            )
            self._work.begin(entry)
            return Receipt(status="accepted", delivery=entry.name, sources=names)

        # A forge that hangs up now must not leave a delivery on record that nobody works on before the next start.
        return await self._work.see_through(enter, seconds=ENTER_SECONDS)

    async def _proven(self, adapter: ForgeAdapter, delivery: Delivery) -> list[Source]:
        """The sources whose secret has signed this. Raises `NotAllowed`; nothing of the body is looked at before."""
        # First, and at no cost: whoever signs nothing makes us open no secret.
        adapter.check_signed(delivery.headers)
        by_value = await self._secrets(delivery)
        moment = self._clock()
        proven: list[Source] = []
        # An unknown source and a wrong signature look the same, and take as long.
        for value in by_value or {secrets.token_bytes(32): []}:
            if await _off_loop(len(delivery.body), adapter.signed, delivery.headers, delivery.body, value, moment):
                proven += by_value.get(value, [])
        if not proven:
            raise wrong()
        return proven

    async def _secrets(self, delivery: Delivery) -> dict[bytes, list[Source]]:
        """The secrets of those who may be meant, each opened once. Raises `NotAllowed` if they are too many."""
        opened: dict[str, bytes | None] = {}
        by_value: dict[bytes, list[Source]] = {}
        for source in self._sources.of(delivery.forge, delivery.source):
            name = source.webhook_secret
            assert name is not None
            kind, repository = SecretKind.WEBHOOK, source.repository
            try:
                if not await self._vault.permits(name, kind=kind, source=source.name, repository=repository):
                    continue
                if name not in opened:
                    opened[name] = None
                    opened[name] = await self._vault.value(name, kind=kind, source=source.name, repository=repository)
            except BlacktreeError as error:
                log.warning("webhook secret not usable", source=source.name, reason=str(error))
                continue
            value = opened[name]
            if value:
                by_value.setdefault(value, []).append(source)
            if len(by_value) > MOST_SECRETS:
                raise NotAllowed(
                    f"this farm has more than {MOST_SECRETS} webhook secrets",
                    code="source_required",
                    advice=f"put the source's name at the end of the address: …/webhooks/{delivery.forge}/NAME",
                )
        return by_value

    async def _read(self, adapter: ForgeAdapter, delivery: Delivery) -> Event:
        kind = delivery.headers.get("content-type", "")
        event = adapter.event_name(delivery.headers)

        def read() -> Event:
            return adapter.parse(event, payload(delivery.body, kind))

        found: Event = await _off_loop(len(delivery.body), read)
        return found

    def figures(self) -> dict[str, Any]:
        """For `Control.figures`."""
        return {"webhooks_total{result}": dict(self.counts), "webhooks_waiting": self._work.waiting}


def _trimmed(event: Pushed | PullRequest) -> Pushed | PullRequest:
    """Its message has been looked at, and may be long."""
    return msgspec.structs.replace(event, message="")


async def _off_loop(size: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Megabytes are not hashed and parsed on the loop's time."""
    if size < LARGE_BYTES:
        return function(*arguments)
    return await in_loose_thread(lambda: function(*arguments))
