"""Which sources an event concerns, and what comes of it: origins, keys, reasons. Pure."""

import hashlib

import msgspec

from blacktree.errors import BadRequest
from blacktree.job import Origin
from blacktree.orchestrator.forges.base import PullRequest, Pushed, skipped
from blacktree.orchestrator.groups import group_of
from blacktree.source import Source, repository_key

Change = Pushed | PullRequest


def is_about(source: Source, event: Change) -> bool:
    """Whether the event happened in the source's repository, whatever form of its address either names."""
    wanted = repository_key(source.repository)
    for each in event.repositories:
        try:
            if repository_key(each) == wanted:
                return True
        except BadRequest:
            continue
    return False


def why_not(source: Source, event: Change) -> str:
    """Why this source builds nothing for an event of its repository; empty if it does."""
    if isinstance(event, PullRequest):
        if not source.pull_requests:
            return "builds no pull requests"
        if not source.takes_pull_request(event.into):
            return f"builds no pull requests into {event.into!r}"
        if event.closed:
            return ""
    elif event.tag:
        if not source.takes_tag(event.tag):
            return f"builds no tag {event.tag!r}"
    elif not source.takes_branch(event.branch):
        return f"builds no branch {event.branch!r}"
    return "the head commit's message asks not to be built" if skipped(event.message) else ""


def choose(sources: list[Source], event: Change) -> tuple[list[Source], str]:
    """The sources that take this event; if there are none, why."""
    about = [source for source in sources if is_about(source, event)]
    if not about:
        return [], "no source here has this repository"
    reasons = {source.name: why_not(source, event) for source in about}
    chosen = [source for source in about if not reasons[source.name]]
    return chosen, "" if chosen else "; ".join(f"source {name} {_as_clause(why)}" for name, why in reasons.items())


def _as_clause(why: str) -> str:
    return why if why.startswith("builds") else f"skips it: {why}"


def origin_of(source: Source, event: Change, delivery: str) -> Origin:
    """Where a job of this source comes from."""
    if isinstance(event, PullRequest):
        origin = Origin(
            source=source.name,
            event="pull_request",
            branch=event.into,
            pull_request=event.number,
            commit=event.commit,
            delivery=delivery,
            trusted=not event.fork,
            allowed=sorted(source.allow_forks) if event.fork else [],
        )
    else:
        kind = "tag" if event.tag else "push"
        origin = Origin(
            source=source.name, event=kind, branch=event.branch, tag=event.tag, commit=event.commit, delivery=delivery
        )
    if not source.supersede:
        return origin

    return msgspec.structs.replace(origin, supersedes=group_of(origin))


def job_key(source: Source, identity: str, origin: Origin) -> str:
    """The idempotency key: the same delivery makes one job of each source and ref, however often it comes."""
    text = "\n".join((source.name, identity, group_of(origin), origin.commit))
    return f"webhook-{hashlib.sha256(text.encode()).hexdigest()[:40]}"


def superseded_by(origin: Origin, job_id: str) -> str:
    """The reason that a job gives which made way."""
    place = group_of(origin).replace(":", " ", 1).replace("_", " ")
    return f"superseded by {origin.commit[:12]} of {place} (job {job_id})"
