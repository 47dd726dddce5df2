"""`Herald`: what a change of a job or a deployment is worth telling, as rows of the change's own transaction. Pure."""

from collections.abc import Sequence
from typing import Any

import msgspec

from blacktree.clock import new_id, rfc3339
from blacktree.deployment import Deployment
from blacktree.event import Record, StateChanged
from blacktree.job import Job
from blacktree.notification import repository_shown, wanting
from blacktree.orchestrator.targets import Targets
from blacktree.storage.base import Outgoing

ROW = "notify"
MOST_TEXT = 2000


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A row: whom to tell, and the very bytes. `id` is what makes two deliveries of it the same."""

    id: str
    type: str
    targets: list[str]
    body: msgspec.Raw


class Herald:
    """Called inside the store's transactions: nothing is told that was not committed, and nothing committed is lost."""

    def __init__(self, targets: Targets, public_url: str) -> None:
        self._targets = targets
        self._public_url = public_url.rstrip("/")

    def of_job(self, job: Job, records: Sequence[Record]) -> list[Outgoing]:
        """The rows for these changes of a job."""
        if not self._targets.every:
            return []
        return [
            row
            for record in records
            if type(record) is StateChanged
            for row in self._row(f"job.{record.to}", record, job.id, job.spec.repository, self._job(job, record))
        ]

    def of_deployment(self, deployment: Deployment, record: Record, stream: str) -> list[Outgoing]:
        """The row for one change of a deployment's version."""
        if not self._targets.every or type(record) is not StateChanged:
            return []
        version = deployment.version(record.attempt)
        repository = version.repository if version is not None else None
        data = self._deployment(deployment, record)
        return self._row(f"deployment.{record.to}", record, stream, repository, data)

    def _row(
        self, type: str, record: StateChanged, job_id: str, repository: str | None, data: dict[str, Any]
    ) -> list[Outgoing]:
        targets = wanting(self._targets.every, type, repository)
        if not targets:
            return []
        id = f"msg_{new_id()}"
        body = msgspec.json.encode({"type": type, "timestamp": rfc3339(record.time), "data": data})
        event = Event(id=id, type=type, targets=targets, body=msgspec.Raw(body))
        return [Outgoing(kind=ROW, job_id=job_id, body=msgspec.json.encode(event))]

    def _job(self, job: Job, record: StateChanged) -> dict[str, Any]:
        """A job in a few bounded fields; the rest is at `url`. No build arguments, no secrets' names, no log."""
        error, origin = job.error, job.origin
        return {
            "id": job.id,
            "state": record.to,
            "previous": record.previous or None,
            "reason": record.reason[:MOST_TEXT],
            "attempt": record.attempt,
            "repository": repository_shown(job.spec.repository),
            "ref": job.spec.ref,
            "commit": job.commit,
            "pool": job.spec.pool,
            "worker_id": job.worker_id,
            "image": {"reference": job.image.reference, "digest": job.image.digest} if job.image else None,
            "error": {"code": error.code, "message": error.message[:MOST_TEXT], "step": error.step} if error else None,
            "source": origin.source if origin else None,
            "branch": origin.branch if origin else None,
            "pull_request": origin.pull_request if origin else None,
            "retry_of": job.retry_of,
            "created_at": rfc3339(job.created_at),
            "started_at": rfc3339(job.started_at) if job.started_at else None,
            "finished_at": rfc3339(job.finished_at) if job.finished_at else None,
            "url": f"{self._public_url}/#/job/{job.id}" if self._public_url else None,
        }

    def _deployment(self, deployment: Deployment, record: StateChanged) -> dict[str, Any]:
        version = deployment.version(record.attempt)
        return {
            "name": deployment.name,
            "version": record.attempt,
            "state": record.to,
            "previous": record.previous or None,
            "reason": record.reason[:MOST_TEXT],
            "repository": repository_shown(version.repository) if version and version.repository else None,
            "commit": version.commit if version else None,
            "image": (version.reference or version.image or None) if version else None,
            "job_id": version.job_id if version else None,
            "url": f"{self._public_url}/#/deployment/{deployment.name}" if self._public_url else None,
        }
