"""Tokens that came with jobs from the queue, for their clones: sealed, beside the jobs, gone when these end."""

from collections import deque
from typing import Protocol

import structlog
import trio

from blacktree.errors import BadRequest, BlacktreeError, NotFound, StorageFailed
from blacktree.job import Job
from blacktree.orchestrator.ticket import Submission
from blacktree.spec import JobSpec
from blacktree.storage.base import Commit, Store

log = structlog.get_logger()

KIND = "clone-token"
AGAIN_SECONDS = 1.0


class Sealer(Protocol):
    """What this needs of the vault. Both raise `BlacktreeError` where there is no key, or not the right one."""

    def seal(self, value: bytes, about: str) -> bytes: ...

    def unseal(self, body: bytes, about: str) -> bytes: ...


class Unusable(BlacktreeError):
    """The token of a job cannot be read any more."""

    default_code = "clone_token_unreadable"


class CloneTokens:
    """One document a job, readable only with the farm's key. In memory are only the ids of the jobs that have one.

    Without a key a message with a token is refused: in clear it is kept nowhere, and a token in memory alone would not
    outlive a restart, which its job does.
    """

    def __init__(self, store: Store, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer
        self._kept: set[str] = set()
        self._ended: deque[str] = deque()
        self._news = trio.Event()

    async def start(self) -> None:
        """Learn what an earlier life kept, and drop what it did not come to drop. Before jobs are taken."""
        after = ""
        while page := await self._store.documents(KIND, after=after):
            for after, _ in page:
                if await self._is_over(after):
                    await self._remove(after)
                else:
                    self._kept.add(after)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Remove the tokens of jobs that have ended, until cancelled."""
        task_status.started()
        while True:
            await self._news.wait()
            self._news = trio.Event()
            while self._ended:
                try:
                    await self._remove(self._ended[0])
                    self._ended.popleft()
                except StorageFailed as error:
                    log.error("clone token not removed yet", job=self._ended[0], reason=str(error))
                    await trio.sleep(AGAIN_SECONDS)

    def on_commit(self, commit: Commit) -> None:
        """A job that ended needs its token no more."""
        if commit.job.ended and commit.job.id in self._kept:
            self._kept.discard(commit.job.id)
            self._ended.append(commit.job.id)
            self._news.set()

    async def keep(self, submission: Submission) -> bool:
        """Seal and store the token before its job is on record; whether this call stored one.

        A redelivery changes nothing. Raises `BadRequest` where it cannot be sealed, with the vault's code and advice.
        """
        if not submission.token or not await self._is_unknown(submission.id):
            return False
        try:
            body = self._sealer.seal(submission.token.encode(), _about(submission.id, submission.spec))
        except BlacktreeError as error:
            # Not to be waited for: everything behind it in the queue would wait too.
            raise BadRequest(
                f"the message bears a token, which cannot be kept sealed: {error.message}",
                path="message.token",
                code=error.code,
                advice=error.advice,
            ) from None
        stored = await self._store.revise(KIND, submission.id, lambda before: body if before is None else before)
        self._kept.add(submission.id)
        return stored == body

    async def forget(self, job_id: str) -> None:
        """The job that a token was kept for did not come to be."""
        self._kept.discard(job_id)
        await self._remove(job_id)

    async def of(self, job: Job) -> str:
        """The token for this job's clone, or an empty string. Raises `Unusable`, `StorageFailed`."""
        if job.id not in self._kept:
            return ""
        body = await self._store.document(KIND, job.id)
        if body is None:
            return ""
        try:
            return self._sealer.unseal(body, _about(job.id, job.spec)).decode()
        except BlacktreeError as error:
            raise Unusable(
                f"the token that came with this job cannot be read: {error.message}",
                advice="give the farm the key with which it was sealed, or publish the job again with a new id",
            ) from None

    async def _is_unknown(self, job_id: str) -> bool:
        try:
            await self._store.get(job_id)
        except NotFound:
            return True
        return False

    async def _is_over(self, job_id: str) -> bool:
        try:
            return (await self._store.get(job_id)).ended
        except NotFound:
            # Its message was never acknowledged: it comes again, and the token with it.
            return True
        except StorageFailed:
            return False

    async def _remove(self, job_id: str) -> None:
        await self._store.revise(KIND, job_id, lambda _: None)


def _about(job_id: str, spec: JobSpec) -> str:
    """A token counts only for the job and the repository that it came for."""
    return f"{KIND} {job_id} {spec.repository}"
