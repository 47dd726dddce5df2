"""JSON-RPC 2.0 over one websocket: a reader, its requests and its watches; the first side to end ends all."""

from functools import partial
from typing import Any, TypeVar

import msgspec
import structlog
import trio
import trio_websocket

from blacktree import __version__
from blacktree.api import faults, messages, shapes
from blacktree.api.auth import Actor
from blacktree.api.deploymentlog import WATCH, log_methods, watch_deployment
from blacktree.api.deployments import DeploymentMethods
from blacktree.api.farmfeed import FarmFeed, wait_for_farm_events
from blacktree.api.frame import GOING_AWAY, Frames, close_frame, text_frame
from blacktree.api.handler import Method
from blacktree.api.history import AskHistory
from blacktree.api.joblist import Wanted, find_jobs
from blacktree.api.livelog import Watches, watch_farm, watch_job
from blacktree.api.metrics import Tally
from blacktree.api.notify import notify_methods
from blacktree.api.oneself import self_methods
from blacktree.api.outline import AskOutline, outline
from blacktree.api.reception import Reception
from blacktree.api.search import Question, search
from blacktree.api.secrets import secret_methods
from blacktree.api.sources import source_methods
from blacktree.api.table import METHODS
from blacktree.api.tokens import token_methods
from blacktree.api.trail import code_of, named_in
from blacktree.api.wire import Wire
from blacktree.api.wiring import admit, check_methods
from blacktree.config import DoorConfig
from blacktree.errors import BadRequest, BlacktreeError, NotFound, Unavailable
from blacktree.job import JobState
from blacktree.orchestrator.control import Control
from blacktree.spec import parse_spec
from blacktree.strict import decode_json, nearest

MOST_REQUESTS = 64

T = TypeVar("T")

log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode
_decode_envelope = msgspec.json.Decoder(messages.Envelope).decode
_NULL = b"null"
_WATCHES = tuple(name for name, each in METHODS.items() if each.socket and each.socket.notifications)
# What the peer did wrong (RFC 6455, section 7.4.1); the library closes without telling it.
_UNSAID = (1002, 1007)


class Session:
    """One connection's conversation. Requests run at once, beside each other, up to a bound."""

    def __init__(
        self,
        control: Control,
        frames: Frames,
        feed: FarmFeed,
        config: DoorConfig,
        tally: Tally,
        actor: Actor,
        reception: Reception,
    ) -> None:
        self._control = control
        self._frames = frames
        self._feed = feed
        self._config = config
        self._tally = tally
        self._actor = actor
        self._reception = reception
        self._watches = Watches(config.maximum_watches)
        self._requests = 0
        self._methods: dict[str, Method] = {
            "job.submit": self._submit,
            "job.get": self._get,
            "job.list": self._list,
            "job.cancel": self._cancel,
            "job.retry": self._retry,
            "job.events": self._events,
            "job.search": self._search,
            "job.outline": self._outline,
            "job.unwatch": self._unwatch,
            "farm.unwatch": self._unwatch,
            "deployment.unwatch": self._unwatch,
            "farm.events": self._farm_events,
            "farm.info": self._info,
            "farm.history": self._history,
            "worker.list": self._workers,
            "worker.drain": self._drain,
            **source_methods(control, actor.name),
            **notify_methods(control, actor.name),
            **DeploymentMethods(control.deployments, actor).table(),
            **log_methods(control.deployments),
            **secret_methods(control, actor.name),
            **token_methods(control, reception, actor),
            **self_methods(reception, actor),
        }
        check_methods((*self._methods, *_WATCHES))

    async def run(self, wire: Wire) -> None:
        """Speak until either side ends. The wire's first bytes are the upgrade's head."""
        self._wire = wire
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            with trio.fail_after(self._config.head_seconds):
                request = await trio_websocket.wrap_server_stream(
                    nursery, wire, max_message_size=self._config.maximum_frame_bytes, receive_buffer_size=65536
                )
                self._socket = await request.accept()
            wire.farewell = GOING_AWAY
            self._tally.websockets += 1
            try:
                nursery.start_soon(self._ping)
                while True:
                    await self._hear(await self._socket.get_message())
            except (trio_websocket.ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
                reason = self._socket.closed
                if reason is not None and reason.code in _UNSAID:
                    await wire.last_words(close_frame(reason.code))
            finally:
                self._tally.websockets -= 1
                if self._socket.closed is not None:
                    wire.farewell = b""
            nursery.cancel_scope.cancel()

    async def _ping(self) -> None:
        """Show a proxy that we live, and end with a peer of whom nothing is heard for long."""
        patience = 2 * self._config.ping_seconds + 4 * self._config.send_seconds
        while True:
            await trio.sleep(self._config.ping_seconds)
            if trio.current_time() > self._wire.heard_at + patience:
                self._wire.abort()
                return
            try:
                await self._wire.send_turn(b"\x89\x00", unless=self._closing)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    def _closing(self) -> bool:
        return self._socket.closed is not None

    async def _send(self, frame: bytes) -> None:
        await self._wire.send_turn(frame, unless=self._closing)

    async def _hear(self, message: str | bytes) -> None:
        """One message: refused at once, or begun."""
        if isinstance(message, bytes):
            await self._refuse(_NULL, faults.INVALID_REQUEST, "binary frames are not understood")
            return
        try:
            envelope = _decode_envelope(message)
        except msgspec.ValidationError:
            is_batch = message.lstrip(" \t\r\n").startswith("[")
            why = "batches are not understood: one object a frame" if is_batch else "a request is an object"
            await self._refuse(_NULL, faults.INVALID_REQUEST, why)
            return
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            await self._refuse(_NULL, faults.PARSE_ERROR, f"not JSON: {error}"[:300])
            return
        await self._begin(envelope)

    async def _begin(self, envelope: messages.Envelope) -> None:
        identity, params = bytes(envelope.id), bytes(envelope.params) or b"{}"
        if identity and identity[:1] not in b'"-0123456789n':
            await self._refuse(_NULL, faults.INVALID_REQUEST, "`id` must be a string, a number or null")
            return
        try:
            method = msgspec.json.decode(envelope.method, type=str)
            version = msgspec.json.decode(envelope.jsonrpc, type=str)
        except (msgspec.DecodeError, UnicodeError):
            method = version = ""
        if version != "2.0" or not method:
            why = '`jsonrpc` must be "2.0"' if version != "2.0" else "`method` must be a string"
            await self._refuse(identity or _NULL, faults.INVALID_REQUEST, why)
        elif method not in METHODS:
            if identity:
                guess = nearest(method, list(METHODS))
                advice = {"advice": f"did you mean `{guess}`?"} if guess else {}
                await self._refuse(identity, faults.NO_SUCH_METHOD, f"no method {method[:100]!r}", advice)
        elif self._requests >= MOST_REQUESTS:
            busy = Unavailable(f"{MOST_REQUESTS} requests of this connection are under way", code="too_many_requests")
            await self._answer(identity, busy)
        else:
            self._requests += 1
            self._nursery.start_soon(self._serve, identity, method, params)

    async def _serve(self, identity: bytes, method: str, params: bytes) -> None:
        counted = True
        try:
            self._reception.limits.arrived(self._actor.address)
            self._reception.limits.known(self._actor.token)
            if METHODS[method].acts:
                await self._reply(identity, await self._act(method, params))
                return
            admit(METHODS[method], self._actor)
            _check_object(params)
            if method in self._methods:
                await self._reply(identity, await self._methods[method](params))
            elif identity:
                # A watch lasts; it counts among the watches, not among the requests under way.
                self._requests -= 1
                counted = False
                await self._watch(identity, method, params)
        except BlacktreeError as error:
            await self._answer(identity, error)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except Exception:
            log.exception("request_failed", method=method)
            await self._answer(identity, faults.unexpected())
        finally:
            self._requests -= counted

    async def _act(self, method: str, params: bytes) -> bytes:
        trail, actor = self._reception.trail, self._actor
        try:
            admit(METHODS[method], actor)
            _check_object(params)
            result = await self._methods[method](params)
        except BaseException as error:
            trail.left(actor, "websocket", method, target=named_in(params), error=code_of(error))
            raise
        trail.left(actor, "websocket", method, target=named_in(params), told=result)
        return result

    async def _watch(self, identity: bytes, method: str, params: bytes) -> None:
        wanted = None
        if method != WATCH:
            wanted = _params(params, messages.WatchJob if method == "job.watch" else messages.Nothing)
        watch, scope = self._watches.open()
        self._tally.watches += 1
        answered = False

        async def reply(result: bytes) -> None:
            nonlocal answered
            answered = True
            await self._reply(identity, result)

        try:
            with scope:
                if isinstance(wanted, messages.WatchJob):
                    follow = (wanted.id, wanted.from_seq, watch, reply, self._send)
                    await watch_job(self._control, self._frames, *follow)
                elif wanted is None:
                    await watch_deployment(self._control.deployments, params, watch, reply, self._send)
                else:
                    await watch_farm(self._feed, watch, reply, self._send)
        except BlacktreeError as error:
            if not answered:
                raise
            failed = {"jsonrpc": "2.0", "method": "watch.failed"}
            params_out = {"watch": watch, "error": faults.rpc_error(error)}
            await self._send(text_frame(_encode({**failed, "params": params_out})))
        finally:
            self._tally.watches -= 1
            self._watches.close(watch)

    async def _reply(self, identity: bytes, result: bytes) -> None:
        if identity:
            await self._send(text_frame(b'{"jsonrpc":"2.0","id":', identity, b',"result":', result, b"}"))

    async def _answer(self, identity: bytes, error: BlacktreeError) -> None:
        if identity:
            body = _encode(faults.rpc_error(error))
            try:
                await self._send(text_frame(b'{"jsonrpc":"2.0","id":', identity, b',"error":', body, b"}"))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    async def _refuse(self, identity: bytes, code: int, message: str, data: dict[str, Any] | None = None) -> None:
        error: dict[str, Any] = {"code": code, "message": message}
        if data:
            error["data"] = data
        await self._send(text_frame(b'{"jsonrpc":"2.0","id":', identity, b',"error":', _encode(error), b"}"))

    async def _submit(self, params: bytes) -> bytes:
        view, _ = await self._control.submit(parse_spec(params), actor=self._actor.token_name)
        return _encode(messages.job_json(view))

    async def _get(self, params: bytes) -> bytes:
        return _encode(messages.job_json(await self._control.job(_params(params, messages.ById).id)))

    async def _list(self, params: bytes) -> bytes:
        asked = _params(params, messages.ListJobs)
        states = [asked.state] if isinstance(asked.state, JobState) else asked.state or []
        limit = messages.clamp(asked.limit, 1, messages.MOST_JOBS)
        wanted = Wanted(repository=asked.repository, text=asked.text, pool=asked.pool)
        found = await find_jobs(self._control, states, wanted, limit=limit, cursor=asked.cursor)
        return _encode(messages.jobs_json(found))

    async def _cancel(self, params: bytes) -> bytes:
        asked = _params(params, messages.ById)
        view = await self._control.cancel(asked.id, reason=asked.reason, actor=self._actor.name)
        return _encode(messages.job_json(view))

    async def _retry(self, params: bytes) -> bytes:
        asked = _params(params, messages.ById)
        return _encode(messages.job_json(await self._control.retry(asked.id, actor=self._actor.token_name)))

    async def _events(self, params: bytes) -> bytes:
        asked = _params(params, messages.ReadEvents)
        limit = messages.clamp(asked.limit, 1, messages.MOST_EVENTS)
        piece = await self._control.events(asked.id, messages.clamp(asked.from_seq, 1), limit)
        return b'{"events":[%b],"next_seq":%d}' % (piece.body, piece.next_seq)

    async def _search(self, params: bytes) -> bytes:
        asked = _params(params, Question)
        return _encode(await search(partial(self._control.records, asked.id), asked))

    async def _outline(self, params: bytes) -> bytes:
        asked = _params(params, AskOutline)
        return _encode(await outline(partial(self._control.records, asked.id), asked.step, asked.from_seq))

    async def _unwatch(self, params: bytes) -> bytes:
        watch = _params(params, messages.Unwatch).watch
        if not self._watches.cancel(watch):
            raise NotFound(f"there is no watch {watch}")
        return b"{}"

    async def _farm_events(self, params: bytes) -> bytes:
        asked = _params(params, messages.FarmEvents)
        from_seq, limit = messages.clamp(asked.from_seq, 1), messages.clamp(asked.limit, 1, messages.MOST_EVENTS)
        events = await wait_for_farm_events(self._control, from_seq, limit, asked.wait)
        return _encode(messages.farm_events_json(events, from_seq))

    async def _info(self, params: bytes) -> bytes:
        _params(params, messages.Nothing)
        readiness = self._control.readiness()
        told = {"version": __version__, "status": readiness.state, "reasons": readiness.reasons}
        return _encode(told | {"figures": messages.figures_json(self._control.figures())})

    async def _history(self, params: bytes) -> bytes:
        return _encode(await self._feed.history.get(_params(params, AskHistory)))

    async def _workers(self, params: bytes) -> bytes:
        _params(params, messages.Nothing)
        return _encode(shapes.Workers(workers=self._control.workers()))

    async def _drain(self, params: bytes) -> bytes:
        asked = _params(params, messages.DrainWorker)
        view = await self._control.drain(asked.id, asked.drain, actor=self._actor.name)
        return _encode(view)


def _check_object(params: bytes) -> None:
    if not params.startswith(b"{"):
        raise BadRequest("params: expected an object", path="params", code="invalid")


def _params(body: bytes, kind: type[T]) -> T:
    return decode_json(body, kind, where="params")
