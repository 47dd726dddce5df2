"""What a worker is handed of a job: the spec and what goes with it, and whether that fits in one message."""

from collections.abc import Awaitable, Callable

from blacktree.job import Failure, Job
from blacktree.orchestrator.clonetokens import CloneTokens, Unusable
from blacktree.orchestrator.enclosure import Enclosed
from blacktree.orchestrator.held import Held
from blacktree.rpc.codec import assignment_to_wire
from blacktree.rpc.peer import MAX_MESSAGE_BYTES, Assignment, PartImage

# The list around it.
FRAME_BYTES = 64


class Parcels:
    """Packs assignments. Secrets are read when they are needed, and live no longer than the hand-off."""

    def __init__(
        self,
        tokens: CloneTokens,
        enclosed: Callable[[Job], Awaitable[Enclosed]],
        cache_for: Callable[[Job], Awaitable[list[str]]],
        *,
        allow_local_sources: bool,
    ) -> None:
        self._tokens = tokens
        self._enclosed = enclosed
        self._cache_for = cache_for
        self._allow_local_sources = allow_local_sources

    async def pack(self, held: Held) -> Assignment | Failure:
        """The assignment, or why this job can never be handed to a worker. Raises `BlacktreeError`, such as
        `StorageFailed`."""
        job = held.job
        try:
            clone_token = await self._tokens.of(job)
        except Unusable as error:
            return Failure(code=error.code, message=error.message, advice=error.advice)
        enclosed = await self._enclosed(job)
        assignment = Assignment(
            name=held.name,
            spec=job.spec,
            commit=job.commit,
            allow_local_sources=self._allow_local_sources,
            secrets=enclosed.secrets,
            logins=enclosed.logins,
            clone_token=clone_token,
            # What its source does not allow by name is not in the spec.
            trusted=job.origin is None or job.origin.may("push") or job.origin.may("cache"),
            cache_from=await self._cache_for(job),
            traceparent=job.trace or "",
            part=job.part_of is not None,
            parts=[PartImage(platform=each.platform, digest=each.digest, tag=each.tag) for each in job.parts],
        )
        return enclosed.failure or unsendable(assignment) or assignment


def unsendable(assignment: Assignment) -> Failure | None:
    """Why this can never be handed to a worker, if so. A spec alone always fits."""
    if not assignment.secrets and not assignment.logins:
        return None
    size = assignment_to_wire(assignment).ByteSize()
    if size + FRAME_BYTES <= MAX_MESSAGE_BYTES:
        return None
    secrets = sum(map(len, assignment.secrets.values()))
    return Failure(
        code="assignment_too_large",
        message=f"the job, its {len(assignment.secrets)} secrets ({secrets} bytes) and"
        f" {len(assignment.logins)} registry logins make a message of {size} bytes,"
        f" the limit is {MAX_MESSAGE_BYTES}",
        advice="name fewer or smaller secrets, or put them into the workers' own `worker.secrets_directory`",
    )
