"""What a deployment prints and what happens to it, at the door: read, looked through, watched."""

from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from blacktree.api.answers import digest_tag, events_answer, json_answer
from blacktree.api.deployments import deployment_json
from blacktree.api.frame import text_frame
from blacktree.api.handler import Handler, Method
from blacktree.api.livelog import Reply, SendFrame, notification
from blacktree.api.messages import MOST_EVENTS, clamp
from blacktree.api.outline import outline
from blacktree.api.query import asked, last_of, number, sought
from blacktree.api.search import Sought, search
from blacktree.api.text import text_answer
from blacktree.errors import BlacktreeError
from blacktree.orchestrator.control import Follow
from blacktree.orchestrator.deploymentcontrol import DeploymentControl
from blacktree.strict import decode_json

PERIOD_SECONDS = 0.2
WATCH = "deployment.watch"

_encode = msgspec.json.Encoder().encode


class ReadLog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`deployment.events`."""

    name: str
    from_seq: int = 1
    limit: int = 1000


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`deployment.watch`."""

    name: str
    from_seq: int = 1


class Search(Sought, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`deployment.search`: lines that contain `text` (case aside), or, with `errors`, lines that read like an error.

    `attempt`: only this version's lines (0: of all). `step`: only those of this replica, `VERSION/INDEX`.
    `with_events`: the answer also holds the events of the hits.
    """

    name: str


class AskOutline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`deployment.outline`. `step`: only this replica's, `VERSION/INDEX`; empty: of all."""

    name: str
    step: str = ""
    from_seq: int = 1


def log_handlers(control: DeploymentControl) -> dict[str, Handler]:
    """The routes' handlers, by operation."""

    async def events(request: Request) -> Response:
        query = asked(request)
        from_seq = clamp(number(query, "from_seq", 1), 1)
        limit = clamp(number(query, "limit", 1000), 1, MOST_EVENTS)
        body = await _events(control, _name(request), from_seq, limit)
        end = await control.next_seq(_name(request)) - 1
        # How long the log is, for whoever wants to begin at its end.
        return await events_answer(request, body, digest_tag(body), {"blacktree-end-seq": str(end)})

    async def find(request: Request) -> Response:
        return json_answer(await search(partial(control.records, _name(request)), sought(request)))

    async def lies(request: Request) -> Response:
        query = asked(request)
        from_seq = clamp(number(query, "from_seq", 1), 1)
        return json_answer(await outline(partial(control.records, _name(request)), last_of(query, "step"), from_seq))

    async def text(request: Request) -> Response:
        asked(request)
        begin, end = await control.text_size(_name(request))
        return text_answer(request, control, _name(request), begin, end)

    return {"deployment.events": events, "deployment.search": find, "deployment.outline": lies, "deployment.log": text}


def log_methods(control: DeploymentControl) -> dict[str, Method]:
    """The same for a websocket."""

    async def events(params: bytes) -> bytes:
        wanted = decode_json(params, ReadLog, where="params")
        limit = clamp(wanted.limit, 1, MOST_EVENTS)
        return await _events(control, wanted.name, clamp(wanted.from_seq, 1), limit)

    async def find(params: bytes) -> bytes:
        wanted = decode_json(params, Search, where="params")
        return _encode(await search(partial(control.records, wanted.name), wanted))

    async def lies(params: bytes) -> bytes:
        wanted = decode_json(params, AskOutline, where="params")
        return _encode(await outline(partial(control.records, wanted.name), wanted.step, wanted.from_seq))

    return {"deployment.events": events, "deployment.search": find, "deployment.outline": lies}


async def watch_deployment(
    control: DeploymentControl, params: bytes, watch: int, reply: Reply, send: SendFrame
) -> None:
    """Answer with the deployment and where its log begins, then its events from there on, and itself as it changes.

    Without end. Raises `NotFound` before any answer.
    """
    wanted = decode_json(params, Watch, where="params")
    first = await control.first_seq(wanted.name)
    async with control.follow(wanted.name, clamp(wanted.from_seq, first)) as follow:
        told = _encode(deployment_json(await control.get(wanted.name)))
        await reply(b'{"watch":%d,"first_seq":%d,"deployment":%b}' % (watch, first, told))
        failed: list[Exception] = []
        async with trio.open_nursery() as nursery:

            async def tell(telling: Callable[[], Awaitable[None]]) -> None:
                try:
                    await telling()
                except (BlacktreeError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    # Alone, not in a group: whoever called knows these.
                    failed.append(error)
                    nursery.cancel_scope.cancel()

            nursery.start_soon(tell, partial(_tell_changes, control, wanted.name, watch, told, send))
            await tell(partial(_tell_events, follow, watch, send))
    if failed:
        raise failed[0]


_EVENTS = b'{"jsonrpc":"2.0","method":"deployment.events","params":{"watch":%d,"events":['


async def _tell_events(follow: Follow, watch: int, send: SendFrame) -> None:
    async for piece in follow:
        await send(text_frame(_EVENTS % watch, piece.body, b"]}}"))


async def _tell_changes(control: DeploymentControl, name: str, watch: int, told: bytes, send: SendFrame) -> None:
    version = 0
    while True:
        version = await control.wait_changed(version)
        body = _encode(deployment_json(await control.get(name)))
        if body != told:
            told = body
            await send(notification("deployment.changed", b'{"watch":%d,"deployment":%b}' % (watch, body)))
        await trio.sleep(PERIOD_SECONDS)


async def _events(control: DeploymentControl, name: str, from_seq: int, limit: int) -> bytes:
    piece = await control.events(name, from_seq, limit)
    first = await control.first_seq(name)
    return b'{"events":[%b],"next_seq":%d,"first_seq":%d}' % (piece.body, piece.next_seq, first)


def _name(request: Request) -> str:
    return str(request.path_params["name"])
