"""What a job asks for: `JobSpec`, and the rules a submission must keep (contract.md, section 2)."""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from blacktree.address import parse_address
from blacktree.errors import BadRequest
from blacktree.platforms import is_known
from blacktree.runspec import RunSpec, check_run
from blacktree.strict import convert, decode_json
from blacktree.tracecontext import TraceParent

MAX_SPEC_BYTES = 1 << 20

Text = Annotated[str, Meta(max_length=4096)]
Name = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9._-]+\Z")]
PoolName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}\Z")]
Tag = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")]

Platform = Annotated[str, Meta(pattern=r"^[a-z0-9]+(/[a-z0-9]+){0,2}\Z", max_length=64)]

DEFAULT_POOL = "default"

# The distribution project's reference grammar: optional host[:port]/, then lower-case path components.
_IMAGE = re.compile(
    r"(?:(?P<host>localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9.-]+:\d{1,5}|\[[0-9a-fA-F:]+\](?::\d{1,5})?)/)?"
    r"(?P<path>[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)\Z"
)


class JobSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False, kw_only=True):
    """A job as submitted. Equal specs compare equal; neither the idempotency key nor the trace counts."""

    repository: Annotated[str, Meta(min_length=1, max_length=4096)]
    ref: Annotated[str, Meta(max_length=1024)] | None = None
    context: Text = "."
    dockerfile: Text = "Dockerfile"
    image: Annotated[str, Meta(max_length=255)] | None = None
    tags: Annotated[list[Tag], Meta(max_length=32)] = []
    target: Annotated[str, Meta(max_length=256)] | None = None
    platform: Platform | None = None
    platforms: Annotated[list[Platform], Meta(max_length=16)] = []
    build_args: Annotated[dict[Annotated[str, Meta(min_length=1, max_length=256)], str], Meta(max_length=256)] = {}
    labels: Annotated[dict[Annotated[str, Meta(min_length=1, max_length=256)], str], Meta(max_length=256)] = {}
    no_cache: bool = False
    pull: bool = False
    cache_from: Annotated[list[Text], Meta(max_length=32)] = []
    builder: Literal["auto", "buildkit", "classic"] = "auto"
    secrets: Annotated[list[Name], Meta(max_length=64)] = []
    push: bool = False
    run: RunSpec | None = None
    timeout_seconds: Annotated[float, Meta(gt=0, le=7 * 86400)] = 3600.0
    max_attempts: Annotated[int, Meta(ge=1, le=20)] = 3
    priority: Annotated[int, Meta(ge=0, le=9)] = 5
    pool: PoolName = DEFAULT_POOL
    traceparent: TraceParent | None = None
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=256)] | None = None

    def same_as(self, other: "JobSpec") -> bool:
        """Whether both ask for the same thing (the idempotency key and the trace aside)."""
        return msgspec.structs.replace(self, idempotency_key=None, traceparent=None) == msgspec.structs.replace(
            other, idempotency_key=None, traceparent=None
        )


def parse_spec(body: bytes | str) -> JobSpec:
    """A spec from JSON. Raises `BadRequest` (code `invalid`, `malformed` or `too_large`) with the path."""
    if len(body) > MAX_SPEC_BYTES:
        raise BadRequest(
            f"the spec has {len(body)} bytes, the limit is {MAX_SPEC_BYTES}", path="spec", code="too_large"
        )
    return checked(decode_json(body, JobSpec, where="spec"))


def spec_from(value: Any) -> JobSpec:
    """A spec from decoded JSON. Raises as `parse_spec`."""
    if not isinstance(value, dict):
        raise BadRequest("spec: expected an object", path="spec", code="invalid")
    return checked(convert(value, JobSpec, where="spec"))


def checked(spec: JobSpec) -> JobSpec:
    """The spec itself, if it keeps the rules that types cannot say. Raises `BadRequest`."""
    for name in ("repository", "ref", "context", "dockerfile", "target"):
        value = getattr(spec, name)
        if value is not None and any(ord(char) < 32 or ord(char) == 127 for char in value):
            raise _refused(name, "contains a control character")
    # Whether a local one is allowed is the farm's to say; what can never be cloned, or bears a password, never gets in.
    parse_address(spec.repository, allow_local=True, where="spec.repository")
    if spec.ref is not None and (spec.ref.startswith("-") or spec.ref == ""):
        raise _refused("ref", "must be a branch, a tag or a commit, and must not start with `-`")
    for name in ("context", "dockerfile"):
        value = getattr(spec, name)
        if value == "" or value.startswith("/") or ".." in value.split("/"):
            raise _refused(name, "must be a relative path inside the repository, without `..`")
    if spec.image is not None and not is_image_name(spec.image):
        raise _refused(
            "image", "must be a lower-case image name without a tag, such as `team/app` or `registry.example/team/app`"
        )
    for key in spec.build_args:
        if "=" in key or "\0" in key:
            raise _refused(f"build_args.{key}", "a name must not contain `=`")
    for index, name in enumerate(spec.secrets):
        if name in (".", ".."):
            raise _refused(f"secrets[{index}]", f"`{name}` cannot name a secret")
    if len(set(spec.tags)) != len(spec.tags):
        raise _refused("tags", "lists a tag twice")
    if spec.push and spec.image is None:
        raise _refused("push", "needs `image`: its name says where to", advice="e.g. `registry.example/team/app`")
    for name, platform in [("platform", spec.platform or "linux"), *(("platforms", each) for each in spec.platforms)]:
        if not is_known(platform):
            advice = "write it like linux/arm64: system/processor, or system/processor/variant"
            raise _refused(name, f"`{platform}` is no platform that there is", advice)
    if spec.platforms:
        _check_platforms(spec)
    if spec.run is not None:
        check_run(spec.run)
    return spec


def is_image_name(name: str) -> bool:
    """Whether this can be an image's name (registry host included, without tag)."""
    return len(name) <= 255 and _IMAGE.match(name) is not None


def _check_platforms(spec: JobSpec) -> None:
    if spec.platform is not None:
        raise _refused("platforms", "stands beside `platform`", advice="use one of the two")
    if len(set(spec.platforms)) != len(spec.platforms):
        raise _refused("platforms", "lists a platform twice")
    if not spec.push:
        raise _refused(
            "platforms",
            "needs `push`: an engine keeps one platform a name, only a registry holds them together",
            advice="add `push` (--push), or name one `platform`",
        )


def image_name_for(repository: str) -> str:
    """An image name from a repository's address: its last path component, in the characters images allow."""
    tail = repository.rstrip("/").removesuffix(".git").rstrip("/")
    tail = re.split(r"[/:\\]", tail)[-1].lower()
    tail = re.sub(r"[^a-z0-9._-]+", "-", tail).strip("-._")
    tail = re.sub(r"[._-]{2,}", "-", tail)
    return (tail or "image")[:128]


def _refused(path: str, why: str, advice: str = "") -> BadRequest:
    return BadRequest(f"spec.{path}: {why}", path=f"spec.{path}", code="invalid", advice=advice)
