"""`Roster`: the attempts that this worker holds, and what it answered to those it held before."""

from collections import OrderedDict

from blacktree.rpc.peer import Answer, AttemptName
from blacktree.worker.attempt import Attempt

REMEMBERED = 4096
Key = tuple[str, int, str]


class Roster:
    """Held attempts by job and number; earlier answers and tombstones, bounded."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, int], Attempt] = {}
        self._answers: OrderedDict[Key, Answer] = OrderedDict()

    def find(self, name: AttemptName) -> Attempt | None:
        """The held attempt of this name; a wrong token does not speak for it."""
        attempt = self.held.get((name.job_id, name.attempt))
        return attempt if attempt is not None and attempt.name.token == name.token else None

    def earlier(self, name: AttemptName) -> Answer | None:
        """What was answered to this very attempt before."""
        return self._answers.get(_key(name))

    def remember(self, name: AttemptName, answer: Answer) -> None:
        self._answers[_key(name)] = answer
        self._answers.move_to_end(_key(name))
        while len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)

    @property
    def building(self) -> list[Attempt]:
        """Those whose build has not ended; each takes a slot."""
        return [attempt for attempt in self.held.values() if attempt.building]

    @property
    def alive_jobs(self) -> list[str]:
        """Jobs whose things on the engine and on disk must stay."""
        return [attempt.name.job_id for attempt in self.building]

    def holds_job(self, job_id: str) -> bool:
        """Whether a build of this job has not ended here."""
        return any(attempt.name.job_id == job_id for attempt in self.building)

    def settle(self) -> None:
        """Forget the attempts that have ended and whose outcome is stored."""
        for key in [key for key, each in self.held.items() if not each.building and each.outbox.settled]:
            del self.held[key]


def _key(name: AttemptName) -> Key:
    return name.job_id, name.attempt, name.token
