"""The original system's job message, translated into a job (contract.md, section 6). Pure.

Strict, as every body on the queue is: the seven keys of that system, each of its own type, and the one key more that
its Go producer sends (`AutoDeploy`), which means nothing here. `token` may be empty or null: a public repository.
"""

import hashlib
import posixpath
import re
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from blacktree.address import parse_address
from blacktree.config import QueueConfig
from blacktree.errors import BadRequest
from blacktree.orchestrator.ticket import JobId, Submission
from blacktree.spec import JobSpec, checked, is_image_name
from blacktree.strict import convert

Filled = Annotated[str, Meta(min_length=1, max_length=1024)]
Token = Annotated[str, Meta(max_length=4096, pattern=r"^[\x21-\x7e]*\Z")]
Repository = Annotated[str, Meta(max_length=1024, pattern=r"^[A-Za-z0-9._][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)+\Z")]


class DeploymentMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """As that system's API publishes it. `dockerFilePath` is relative to `contextDir`, as in a spec of ours."""

    deploymentId: JobId
    token: Token | None
    repository: Repository
    branch: Filled
    dockerFilePath: Filled
    contextDir: Filled
    createdAt: datetime
    AutoDeploy: bool = False

    def __repr__(self) -> str:
        return f"DeploymentMessage({self.deploymentId!r})"


class Translator:
    """Makes submissions of such messages. Raises `BadRequest` (code `invalid_config`) for settings that never fit."""

    def __init__(self, config: QueueConfig) -> None:
        self._base = config.repository_base_url
        self._prefix = config.push_prefix.rstrip("/")
        try:
            sample = parse_address(self._url("owner/repository"), allow_local=True, where="queue.repository_base_url")
        except BadRequest as error:
            raise BadRequest(error.message, code="invalid_config", advice=error.advice) from None
        # ssh and local paths ask for none.
        self._takes_token = sample.scheme in ("https", "http")
        if self._prefix and not is_image_name(self._image("id")):
            raise BadRequest(
                f"queue.push_prefix: `{config.push_prefix}` is not the beginning of an image's name",
                code="invalid_config",
                advice="use a registry and a path in lower case, such as `registry.example/team`",
            )

    def submission(self, value: dict[str, Any]) -> Submission:
        """The job of a decoded message. Raises `BadRequest` with the path."""
        message = convert(value, DeploymentMessage, where="message")
        if {".", ".."} & set(message.repository.split("/")):
            raise BadRequest("message.repository: must have the form `owner/repo`", path="message.repository")
        spec = JobSpec(
            repository=self._url(message.repository),
            ref=message.branch,
            context=_path(message.contextDir),
            dockerfile=_path(message.dockerFilePath),
            image=self._image(message.deploymentId),
            push=bool(self._prefix),
        )
        try:
            spec = checked(spec)
        except BadRequest as error:
            # Whoever sent it knows nothing of specs.
            key = _KEYS.get(error.path, "")
            raise _renamed(error, key) if key else error from None
        return Submission(message.deploymentId, spec, (message.token or "") if self._takes_token else "")

    def _url(self, repository: str) -> str:
        return f"{self._base}{repository.removesuffix('.git')}.git"

    def _image(self, deployment_id: str) -> str:
        name = f"blacktree/{image_part(deployment_id)}"
        return f"{self._prefix}/{name}" if self._prefix else name


def image_part(deployment_id: str) -> str:
    """An id in the characters that an image's name may have. What had to be changed gets a mark of its own, so that
    two ids never share a name."""
    part = re.sub(r"[^a-z0-9]+", "-", deployment_id.lower()).strip("-")
    if is_image_name(deployment_id):
        return deployment_id
    mark = hashlib.sha256(deployment_id.encode()).hexdigest()[:8]
    return f"{part}-{mark}" if part else mark


_KEYS = {
    "spec.repository": "repository",
    "spec.ref": "branch",
    "spec.context": "contextDir",
    "spec.dockerfile": "dockerFilePath",
}


def _renamed(error: BadRequest, key: str) -> BadRequest:
    path = f"message.{key}"
    return BadRequest(error.message.replace(error.path, path), path=path, code=error.code, advice=error.advice)


def _path(given: str) -> str:
    """`./app/` as `app`; what leads out of the repository stays as it is and is refused with the spec."""
    return given if given.startswith("/") or ".." in given.split("/") else posixpath.normpath(given)
