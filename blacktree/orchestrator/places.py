"""Which repositories a token is for, and what that makes of a job."""

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from blacktree.errors import NotAllowed
from blacktree.orchestrator.control import JobView
from blacktree.secret import fits_any
from blacktree.spec import JobSpec

_MOST_REMEMBERED = 10_000
_LONGEST_KEY = 256


class Places:
    """Whether repositories fit the patterns; remembered, as the same ones come again and again."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = tuple(patterns)
        self._mark = f"~{hashlib.sha256(msgspec.msgpack.encode(self._patterns)).hexdigest()[:12]}~"
        self._known: dict[str, bool] = {}

    def has(self, repository: str | None) -> bool:
        """Whether this one does."""
        if not repository:
            return False
        if (found := self._known.get(repository)) is None:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            found = self._known[repository] = fits_any(repository, self._patterns)
        return found

    def check(self, repository: str) -> None:
        """Raises `NotAllowed`."""
        if not self.has(repository):
            raise NotAllowed(
                "this token is not for that repository",
                code="repository_not_allowed",
                advice="it is for " + ", ".join(self._patterns),
            )

    def keyed(self, spec: JobSpec, key: str | None) -> tuple[JobSpec, str | None]:
        """With an idempotency key of their own: whether others use the same one cannot be found out by trying it."""
        given = spec.idempotency_key if key is None else key
        if not given or spec.idempotency_key not in (None, given):
            return spec, key
        wanted = self._mark + given
        if len(wanted) > _LONGEST_KEY:
            wanted = self._mark + hashlib.sha256(wanted.encode("utf-8", "surrogatepass")).hexdigest()
        return msgspec.structs.replace(spec, idempotency_key=wanted), None

    def shown(self, view: JobView) -> JobView:
        """With the key as it was given."""
        key = view.job.spec.idempotency_key
        if key is None or not key.startswith(self._mark):
            return view
        spec = msgspec.structs.replace(view.job.spec, idempotency_key=key.removeprefix(self._mark))
        return msgspec.structs.replace(view, job=msgspec.structs.replace(view.job, spec=spec))


class Closed:
    """Whatever is asked of it is about the whole farm."""

    def __getattr__(self, name: str) -> Any:
        raise farm_wide()


def farm_wide(advice: str = "use a token without `--repository`") -> NotAllowed:
    """It is not about any repository."""
    return NotAllowed(
        "this is about the whole farm, and the token is for some repositories alone", code="farm_wide", advice=advice
    )
