"""Whether what a worker is to get of a job fits in one message."""

from blacktree.job import Failure
from blacktree.rpc.codec import assignment_to_wire
from blacktree.rpc.peer import MAX_MESSAGE_BYTES, Assignment

# The list around it.
FRAME_BYTES = 64


def unsendable(assignment: Assignment) -> Failure | None:
    """Why this can never be handed to a worker, if so. A spec alone always fits."""
    if not assignment.secrets:
        return None
    size = assignment_to_wire(assignment).ByteSize()
    if size + FRAME_BYTES <= MAX_MESSAGE_BYTES:
        return None
    secrets = sum(map(len, assignment.secrets.values()))
    return Failure(
        code="assignment_too_large",
        message=f"the job and its {len(assignment.secrets)} secrets ({secrets} bytes) make a message of {size} bytes,"
        f" the limit is {MAX_MESSAGE_BYTES}",
        advice="name fewer or smaller secrets, or put them into the workers' own `worker.secrets_directory`",
    )
