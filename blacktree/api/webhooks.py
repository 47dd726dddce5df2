"""`POST /api/v1/webhooks/{forge}` and `…/{source}`: a forge's delivery, let in by its signature alone."""

from starlette.requests import Request
from starlette.responses import Response

from blacktree.api.answers import json_answer
from blacktree.api.body import read_body
from blacktree.api.handler import Handler
from blacktree.config import DoorConfig
from blacktree.orchestrator.control import Control
from blacktree.orchestrator.hookcontrol import Delivery

_KINDS = ("application/json", "application/x-www-form-urlencoded")
_ADVICE = "let the webhook report fewer events, or raise `maximum_webhook_bytes` in section [door]"
# A redelivery is no news; what is only noted down, or needs nothing done, is.
_STATUS = {"accepted": 202, "known": 200, "ignored": 202, "pong": 200}


def webhook_handlers(control: Control, config: DoorConfig) -> dict[str, Handler]:
    """The handlers, by operation."""

    async def receive(request: Request) -> Response:
        limit = config.maximum_webhook_bytes
        body = await read_body(request, _KINDS, limit, required=True, advice=_ADVICE)
        delivery = Delivery(
            forge=request.path_params["forge"],
            source=request.path_params.get("source"),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=body,
        )
        receipt = await control.hooks.receive(delivery)
        answer = {"status": receipt.status, "delivery": receipt.delivery or None, "reason": receipt.reason or None}
        return json_answer(answer | {"sources": receipt.sources}, _STATUS[receipt.status])

    return {"webhook.receive": receive, "webhook.receive.source": receive}
