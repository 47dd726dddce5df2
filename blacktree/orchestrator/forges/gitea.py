"""Gitea and Forgejo: docs.gitea.com and forgejo.org, "Webhooks"; their API's `repoCreateStatus`. Pure."""

import msgspec

from blacktree.errors import BadRequest
from blacktree.job import Origin
from blacktree.orchestrator.forges import signatures
from blacktree.orchestrator.forges.base import (
    Event,
    Headers,
    Nothing,
    PullRequest,
    Report,
    StatusCall,
    api_address,
    decode,
    is_commit,
    project_path,
    pushed,
    short,
)
from blacktree.orchestrator.forges.github import Repository, Side, is_fork, moment, peeled
from blacktree.source import Source

_ACTIONS = frozenset({"opened", "synchronized", "synchronize", "reopened"})
_STATES = {"running": "pending", "canceled": "error"}


class _Commit(msgspec.Struct):
    id: str = ""
    message: str = ""


class _Push(msgspec.Struct):
    ref: str
    after: str
    repository: Repository
    before: str = ""
    commits: list[_Commit] | None = None
    head_commit: _Commit | None = None


class _Pull(msgspec.Struct):
    head: Side
    base: Side
    updated_at: str | None = None


class _PullEvent(msgspec.Struct):
    action: str
    number: int
    pull_request: _Pull
    repository: Repository


class Gitea:
    """See `ForgeAdapter`."""

    def delivery_id(self, headers: Headers) -> str:
        """See `ForgeAdapter.delivery_id`."""
        return headers.get("x-forgejo-delivery") or headers.get("x-gitea-delivery", "")

    def event_name(self, headers: Headers) -> str:
        """See `ForgeAdapter.event_name`."""
        return headers.get("x-forgejo-event") or headers.get("x-gitea-event", "")

    def check_signed(self, headers: Headers) -> None:
        """See `ForgeAdapter.check_signed`."""
        signatures.need(headers, "X-Gitea-Signature", "X-Forgejo-Signature", "X-Hub-Signature-256")

    def signed(self, headers: Headers, body: bytes, secret: bytes, now: float) -> bool:
        """See `ForgeAdapter.signed`."""
        if given := headers.get("x-forgejo-signature") or headers.get("x-gitea-signature"):
            return signatures.hex_hmac_matches(given, body, secret)
        return signatures.hex_hmac_matches(headers.get("x-hub-signature-256", ""), body, secret, "sha256=")

    def parse(self, event: str, body: bytes) -> Event:
        """See `ForgeAdapter.parse`. The test delivery of these forges is a push of the default branch's head."""
        match event:
            case "ping":
                return Nothing(reason="pong", ping=True)
            case "push":
                return _pushed(decode(body, _Push, "Gitea push"))
            case "pull_request" | "pull_request_sync":
                return _pulled(decode(body, _PullEvent, "Gitea pull_request"))
        return Nothing(reason=f"events of kind {event[:100]!r} build nothing")

    def status(self, source: Source, origin: Origin, report: Report, token: str) -> StatusCall:
        """See `ForgeAdapter.status`."""
        body = {
            "state": _STATES.get(report.state, report.state),
            "description": short(report.description),
            "context": report.context,
        }
        return StatusCall(
            url=f"{api_address(source, '/api/v1')}/repos/{project_path(source)}/statuses/{origin.commit}",
            headers={"authorization": f"token {token}", "accept": "application/json"},
            body=body | ({"target_url": report.target_url} if report.target_url else {}),
        )


def _pushed(push: _Push) -> Event:
    head = push.head_commit or next((each for each in push.commits or () if each.id == push.after), None)
    message = head.message if head else ""
    after = peeled(push.ref, push.after, push.head_commit.id if push.head_commit else "")
    return pushed(push.ref, push.before, after, push.repository.addresses, message, None)


def _pulled(event: _PullEvent) -> Event:
    pull = event.pull_request
    if event.action not in _ACTIONS and event.action != "closed":
        return Nothing(reason=f"pull request {event.number} was {event.action[:50]}: that builds nothing")
    if not is_commit(pull.head.sha):
        raise BadRequest(f"pull request {event.number} names no commit", code="malformed")
    return PullRequest(
        repositories=event.repository.addresses,
        number=event.number,
        closed=event.action == "closed",
        action=event.action,
        commit=pull.head.sha,
        into=pull.base.ref,
        fork=is_fork(pull.head, event.repository),
        at=moment(pull.updated_at),
    )
