"""Pushes by the engine: `POST /images/{name}/push`, each layer a step, the engine's own errors told apart."""

import base64
import json
from collections.abc import Callable
from typing import Any

import trio

from blacktree.errors import BlacktreeError, EngineLost, StepFailed
from blacktree.providers.base import Login, Sink
from blacktree.providers.docker.stream import Connector, EngineRefused, parsed
from blacktree.providers.registry.auth import IDENTITY
from blacktree.providers.registry.faults import fault, from_text
from blacktree.providers.registry.reference import parse_reference

_DONE = {"Pushed": False, "Layer already exists": True}
_MOUNTED = "Mounted from "


class Push:
    """One push of one name."""

    def __init__(
        self,
        connector: Connector,
        reference: str,
        login: Login | None,
        sink: Sink,
        step: str,
        nearly: Callable[[], None],
    ) -> None:
        self._connector = connector
        self._reference = reference
        self._parts = parse_reference(reference)
        self._login = login
        self._sink = sink
        self._step = step
        self._nearly = nearly
        self._hinted = False
        # The engine names all layers before the first of them ends.
        self._awaited: set[str] = set()
        self._began: dict[str, float] = {}
        self._ended: set[str] = set()
        self.digest = ""

    async def run(self, stall_seconds: float) -> str:
        """See `Provider.push`."""
        ok = False
        try:
            await self._follow(stall_seconds)
            ok = True
        except EngineRefused as error:
            raise _refused(error, self._parts.host) from None
        except trio.TooSlowError:
            raise fault("registry_slow", f"{self._parts.host}: nothing moved for {stall_seconds:g} s") from None
        finally:
            if not ok:
                await self._close()
        if not self.digest:
            raise EngineLost("the engine ended a push without a digest and without an error")
        return self.digest

    async def _follow(self, stall_seconds: float) -> None:
        name, _, tag = self._reference.rpartition(":")
        headers = [("X-Registry-Auth", encoded(self._login, self._parts.host))]
        # Through as few layers as can be: the engine takes the name as it is, slashes and all.
        opened = self._connector.open("POST", f"/images/{name}/push", {"tag": tag}, headers=headers)
        with trio.fail_after(stall_seconds) as patience:
            async with opened as answer:
                lines = answer.lines()
                async for line in lines:
                    patience.deadline = trio.current_time() + stall_seconds
                    await self._take(parsed(line))

    async def _take(self, message: dict[str, Any]) -> None:
        if "errorDetail" in message or "error" in message:
            detail = message.get("errorDetail")
            text = detail.get("message") if isinstance(detail, dict) else None
            raise _failed(str(text or message.get("error")), self._parts.host)
        aux = message.get("aux")
        if isinstance(aux, dict) and aux.get("Digest"):
            self.digest = str(aux["Digest"])
        layer, status = str(message.get("id", "")), str(message.get("status", ""))
        if not layer:
            if status:
                await self._sink.output(self._step, "stdout", f"{status}\n".encode())
            return
        if status in _DONE or status.startswith(_MOUNTED):
            await self._finish(layer, cached=_DONE.get(status, True), ok=True)
        elif status == "Preparing":
            self._awaited.add(layer)
        elif status == "Pushing":
            await self._begin(layer)
            detail = message.get("progressDetail")
            if isinstance(detail, dict) and isinstance(detail.get("current"), int):
                total = detail.get("total")
                current = max(0, detail["current"])
                # The engine counts what it has compressed and may pass its own estimate.
                most = max(total, current) if isinstance(total, int) else current
                await self._sink.progress(self._name(layer), current, most, "bytes")
        elif status.startswith("Retrying"):
            await self._sink.output(self._step, "stderr", f"layer {layer}: {status}\n".encode())

    def _name(self, layer: str) -> str:
        return f"{self._step}/{layer}"[:64]

    async def _begin(self, layer: str) -> None:
        if layer not in self._began and layer not in self._ended:
            self._began[layer] = trio.current_time()
            await self._sink.step_started(self._name(layer), f"push layer {layer}")

    async def _finish(self, layer: str, *, cached: bool, ok: bool) -> None:
        if layer in self._ended:
            return
        self._ended.add(layer)
        if not self._hinted and self._awaited <= self._ended:
            self._hinted = True
            self._nearly()
        began = self._began.pop(layer, None)
        if began is None and not cached:
            await self._sink.step_started(self._name(layer), f"push layer {layer}")
        seconds = trio.current_time() - began if began is not None else 0.0
        await self._sink.step_finished(
            self._name(layer), f"push layer {layer}", cached=cached and began is None, seconds=seconds, ok=ok
        )

    async def _close(self) -> None:
        """Every step has an end, whatever ended the push; the sink is quick or gone."""
        with trio.move_on_after(2, shield=True):
            for layer in list(self._began):
                await self._finish(layer, cached=False, ok=False)


def encoded(login: Login | None, host: str) -> str:
    """The header `X-Registry-Auth` (Engine API, "Authentication"); the engine wants one without a login too."""
    if login is None:
        return base64.urlsafe_b64encode(b"{}").decode()
    server = "https://index.docker.io/v1/" if host == "docker.io" else host
    if login.username == IDENTITY:
        value = {"identitytoken": login.password, "serveraddress": server}
    else:
        value = {"username": login.username, "password": login.password, "serveraddress": server}
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def _refused(error: EngineRefused, host: str) -> BlacktreeError:
    if error.status in (502, 503, 504):
        return EngineLost(f"push: the engine says {error.status}: {error.message}")
    return _failed(error.message, host)


def _failed(text: str, host: str) -> StepFailed:
    if "no such image" in text.lower() or "does not exist locally" in text:
        return StepFailed(
            f"the image is no longer on the engine: {text}",
            code="image_gone",
            again=True,
            step="push",
            advice="was it pruned? give the worker a larger image budget",
        )
    return from_text(text, host)
