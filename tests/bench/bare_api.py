"""The same answers from the same kind of application without a farm: Starlette behind the door's HTTP, no store.

`python -m tests.bench.bare_api` reads a JSON object on its input: path → the body to answer with.
"""

import json
import sys
from functools import partial

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from blacktree.api.budget import Budget
from blacktree.api.exchange import Conversation
from blacktree.api.wire import Wire
from blacktree.config import DoorConfig

CONFIG = DoorConfig()


async def main(bodies: dict[str, str]) -> None:
    """Says its address, then serves until it is ended."""

    async def answer(request: Request, body: bytes) -> Response:
        return Response(body, headers={"content-type": "application/json"})

    def route(path: str, body: str) -> Route:
        async def one(request: Request) -> Response:
            return await answer(request, body.encode())

        return Route(path, one)

    app = Starlette(routes=[route(path, body) for path, body in bodies.items()])

    async def talk(stream: trio.SocketStream) -> None:
        wire = Wire(stream, send_seconds=30)
        budget = Budget(1 << 20, 1 << 20, lambda headers, peer: peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.guard)
            conversation = Conversation(wire, app, CONFIG, budget)  # type: ignore[arg-type]  # Starlette is one
            request = await conversation.next_request(first=True)
            while request is not None and await conversation.answer(request):
                request = await conversation.next_request(first=False)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, talk, 0, host="127.0.0.1"))
        print(json.dumps({"port": listeners[0].socket.getsockname()[1]}), flush=True)


if __name__ == "__main__":
    trio.run(main, json.loads(sys.stdin.readline()))
