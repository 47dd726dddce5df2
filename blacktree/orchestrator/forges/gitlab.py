"""GitLab: docs.gitlab.com, "Webhooks", "Webhook events" and the commits API's build status. Pure."""

from urllib.parse import quote

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
from blacktree.orchestrator.forges.github import moment
from blacktree.source import Source

_STATES = {"failure": "failed", "error": "failed"}


class _Project(msgspec.Struct):
    git_http_url: str | None = None
    git_ssh_url: str | None = None
    http_url: str | None = None
    ssh_url: str | None = None
    web_url: str | None = None

    @property
    def addresses(self) -> list[str]:
        found = (self.git_http_url, self.git_ssh_url, self.http_url, self.ssh_url, self.web_url)
        return [each for each in found if each]


class _Commit(msgspec.Struct):
    id: str = ""
    message: str = ""


class _Push(msgspec.Struct):
    ref: str
    after: str
    project: _Project
    before: str = ""
    checkout_sha: str | None = None
    commits: list[_Commit] | None = None


class _Attributes(msgspec.Struct):
    iid: int
    source_project_id: int | None = None
    target_project_id: int | None = None
    action: str = ""
    target_branch: str = ""
    oldrev: str | None = None
    last_commit: _Commit | None = None
    updated_at: str | None = None


class _MergeRequest(msgspec.Struct):
    object_attributes: _Attributes
    project: _Project


class GitLab:
    """See `ForgeAdapter`."""

    def delivery_id(self, headers: Headers) -> str:
        """See `ForgeAdapter.delivery_id`. The same over GitLab's own retries."""
        for name in ("webhook-id", "idempotency-key", "x-gitlab-event-uuid"):
            if found := headers.get(name):
                return found
        return ""

    def event_name(self, headers: Headers) -> str:
        """See `ForgeAdapter.event_name`."""
        return headers.get("x-gitlab-event", "")

    def check_signed(self, headers: Headers) -> None:
        """See `ForgeAdapter.check_signed`."""
        signatures.need(headers, "X-Gitlab-Token", "webhook-signature")

    def signed(self, headers: Headers, body: bytes, secret: bytes, now: float) -> bool:
        """See `ForgeAdapter.signed`. A signature goes before the plain token: that one may be there beside it."""
        if given := headers.get("webhook-signature"):
            identity, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
            return signatures.standard_matches(identity, timestamp, given, body, secret, now)
        given = headers.get("x-gitlab-token", "")
        return signatures.token_matches(given, secret) and bool(given)

    def parse(self, event: str, body: bytes) -> Event:
        """See `ForgeAdapter.parse`."""
        match event:
            case "Push Hook" | "Tag Push Hook":
                return _pushed(decode(body, _Push, "GitLab push"))
            case "Merge Request Hook":
                return _merged(decode(body, _MergeRequest, "GitLab merge request"))
        return Nothing(reason=f"events of kind {event[:100]!r} build nothing")

    def status(self, source: Source, origin: Origin, report: Report, token: str) -> StatusCall:
        """See `ForgeAdapter.status`."""
        project = quote(project_path(source), safe="")
        body = {
            "state": _STATES.get(report.state, report.state),
            "description": short(report.description),
            "name": report.context,
        }
        return StatusCall(
            url=f"{api_address(source, '/api/v4')}/projects/{project}/statuses/{origin.commit}",
            headers={"private-token": token, "accept": "application/json"},
            body=body | ({"target_url": report.target_url} if report.target_url else {}),
        )


def _pushed(push: _Push) -> Event:
    after = push.after
    # An annotated tag's `after` is the tag's own object; what it points to is named beside it.
    if push.ref.startswith("refs/tags/") and push.checkout_sha and is_commit(after):
        after = push.checkout_sha
    head = next((each for each in push.commits or () if each.id == after), None)
    return pushed(push.ref, push.before, after, push.project.addresses, head.message if head else "", None)


def _merged(event: _MergeRequest) -> Event:
    what = event.object_attributes
    closed = what.action in ("close", "merge")
    if what.action == "update" and not what.oldrev:
        return Nothing(reason=f"merge request {what.iid} was changed without new commits")
    if what.action not in ("open", "reopen", "update") and not closed:
        return Nothing(reason=f"merge request {what.iid}: {what.action[:50] or 'no action'} builds nothing")
    commit = what.last_commit.id if what.last_commit else ""
    if not is_commit(commit):
        if closed:
            return Nothing(reason=f"merge request {what.iid} was closed without a commit")
        raise BadRequest(f"merge request {what.iid} names no commit", code="malformed")
    return PullRequest(
        repositories=event.project.addresses,
        number=what.iid,
        closed=closed,
        action=what.action,
        commit=commit,
        before=what.oldrev or "",
        into=what.target_branch,
        fork=what.source_project_id is None or what.source_project_id != what.target_project_id,
        message=what.last_commit.message if what.last_commit else "",
        at=moment(what.updated_at),
    )
