"""The labels and marks that say whose something on an engine is."""

import re
from collections.abc import Mapping
from hashlib import sha256

OWNER = "dev.blacktree.owner"
JOB = "dev.blacktree.job"
ATTEMPT = "dev.blacktree.attempt"
# The owner of a replica. Not `OWNER`: what bears that belongs to a build, and goes when the build is over.
REPLICAS = "dev.blacktree.replicas"

_MARK = re.compile(r"blacktree\.(?P<owner>[0-9a-f]{16})\.(?P<job>[A-Za-z0-9_-]+)\.(?P<attempt>\d+)\Z")


def labels_for(owner: str, job_id: str, attempt: int, asked: Mapping[str, str]) -> dict[str, str]:
    """An image's labels: what was asked for, and ours, which cannot be overridden."""
    return {**asked, OWNER: owner, JOB: job_id, ATTEMPT: str(attempt)}


def mark_for(owner: str, job_id: str, attempt: int) -> str:
    """A host name for what takes no labels: the classic builder's intermediate containers."""
    return f"blacktree.{_short(owner)}.{job_id}.{attempt}"


def job_of(mark: str, owner: str) -> str | None:
    """The job that a mark of this owner names; None for anything else."""
    found = _MARK.match(mark)
    return found["job"] if found and found["owner"] == _short(owner) else None


def _short(owner: str) -> str:
    return sha256(owner.encode("utf-8", "surrogatepass")).hexdigest()[:16]
