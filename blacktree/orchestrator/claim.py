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

    def on(self, generation: int) -> Decide:
        """The change that makes it the attempt of a job queued at this generation."""
        member = self.member
        return moves.assign(generation, member.id, member.registration.incarnation, self.token, self._rules)

    def bears(self, job: Job) -> bool:
        """Whether it is on record as this job's current attempt."""
        return job.current is not None and job.current.token == self.token
