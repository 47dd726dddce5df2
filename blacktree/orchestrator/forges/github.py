"""GitHub: docs.github.com, "Webhook events and payloads" and "REST API endpoints for commit statuses". Pure."""

from datetime import datetime

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
from blacktree.source import Source

_ACTIONS = frozenset({"opened", "synchronize", "reopened"})
_STATES = {"running": "pending", "canceled": "error"}


class Repository(msgspec.Struct):
    """A repository as GitHub and Gitea show it."""

    id: int = 0
    full_name: str = ""
    clone_url: str = ""
    ssh_url: str = ""
    git_url: str = ""
    html_url: str = ""
    pushed_at: int | str | None = None

    @property
    def addresses(self) -> list[str]:
        """Every form of its address."""
        return [each for each in (self.clone_url, self.ssh_url, self.git_url, self.html_url) if each]


class _Commit(msgspec.Struct):
    id: str = ""
    message: str = ""


class _Push(msgspec.Struct):
    ref: str
    after: str
    repository: Repository
    before: str = ""
    head_commit: _Commit | None = None


class Side(msgspec.Struct):
    """One side of a pull request; `repo` is null once a fork has been deleted."""

    ref: str = ""
    sha: str = ""
    repo: Repository | None = None


class _Pull(msgspec.Struct):
    head: Side
    base: Side
    updated_at: str = ""


class _PullEvent(msgspec.Struct):
    action: str
    number: int
    pull_request: _Pull
    repository: Repository
    before: str = ""


class GitHub:
    """See `ForgeAdapter`."""

    def delivery_id(self, headers: Headers) -> str:
        """See `ForgeAdapter.delivery_id`."""
        return headers.get("x-github-delivery", "")

    def event_name(self, headers: Headers) -> str:
        """See `ForgeAdapter.event_name`."""
        return headers.get("x-github-event", "")

    def check_signed(self, headers: Headers) -> None:
        """See `ForgeAdapter.check_signed`."""
        signatures.need(headers, "X-Hub-Signature-256")

    def signed(self, headers: Headers, body: bytes, secret: bytes, now: float) -> bool:
        """See `ForgeAdapter.signed`. The older SHA-1 header proves nothing here."""
        return signatures.hex_hmac_matches(headers.get("x-hub-signature-256", ""), body, secret, "sha256=")

    def parse(self, event: str, body: bytes) -> Event:
        """See `ForgeAdapter.parse`."""
        match event:
            case "ping":
                return Nothing(reason="pong", ping=True)
            case "push":
                return _pushed(decode(body, _Push, "GitHub push"))
            case "pull_request":
                return _pulled(decode(body, _PullEvent, "GitHub pull_request"))
        return Nothing(reason=f"events of kind {event[:100]!r} build nothing")

    def status(self, source: Source, origin: Origin, report: Report, token: str) -> StatusCall:
        """See `ForgeAdapter.status`."""
        base = api_address(source, "/api/v3")
        if not source.forge_url and base.endswith("//github.com/api/v3"):
            base = "https://api.github.com"
        body = {
            "state": _STATES.get(report.state, report.state),
            "description": short(report.description),
            "context": report.context,
        }
        return StatusCall(
            url=f"{base}/repos/{project_path(source)}/statuses/{origin.commit}",
            headers={
                "authorization": f"Bearer {token}",
                "accept": "application/vnd.github+json",
                "x-github-api-version": "2022-11-28",
            },
            body=body | ({"target_url": report.target_url} if report.target_url else {}),
        )


def _pushed(push: _Push) -> Event:
    message = push.head_commit.message if push.head_commit else ""
    after = peeled(push.ref, push.after, push.head_commit.id if push.head_commit else "")
    return pushed(push.ref, push.before, after, push.repository.addresses, message, moment(push.repository.pushed_at))


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
        before=event.before if is_commit(event.before) else "",
        into=pull.base.ref,
        fork=is_fork(pull.head, event.repository),
        at=moment(pull.updated_at),
    )


def is_fork(head: Side, repository: Repository) -> bool:
    """Whether the head lies anywhere but in the repository itself; what cannot be told counts as a fork."""
    if head.repo is None:
        return True
    if head.repo.id and repository.id:
        return head.repo.id != repository.id
    return not head.repo.full_name or head.repo.full_name.lower() != repository.full_name.lower()


def peeled(ref: str, after: str, head: str) -> str:
    """The commit: an annotated tag's `after` is the tag's own object, and the head commit is named beside it."""
    return head if ref.startswith("refs/tags/") and is_commit(after) and is_commit(head) else after


def moment(value: int | str | None) -> float | None:
    """Unix seconds from what forges write: a number, or RFC 3339."""
    try:
        if isinstance(value, int):
            return float(value)
        return datetime.fromisoformat(value).timestamp() if value else None
    except (ValueError, OverflowError):
        return None
