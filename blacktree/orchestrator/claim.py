"""`Claim`: a worker's slot, and the attempt that is to take it."""

import secrets

from blacktree.job import Job
from blacktree.orchestrator import moves
from blacktree.orchestrator.member import Member
from blacktree.storage.base import Decide


class Claim:
    """An attempt to be: a worker's slot and the token that will tell this attempt from every other."""

    def __init__(self, member: Member, rules: moves.Rules) -> None:
        self.member = member
        self.token = secrets.token_hex(16)
        self._rules = rules

    def on(self, job_id: str, generation: int) -> Decide:
        """The change that makes it the attempt of this job, if that is queued at this generation."""
        member = self.member
        assign = moves.assign(generation, member.id, member.registration.incarnation, self.token, self._rules)
        return lambda job: assign(job) if job.id == job_id else None

    def bears(self, job: Job) -> bool:
        """Whether it is on record as this job's current attempt."""
        return job.current is not None and job.current.token == self.token
