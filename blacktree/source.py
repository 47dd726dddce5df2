"""A declared source: which repository's webhooks become jobs, and what those jobs look like. Pure."""

import fnmatch
import re
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta

from blacktree.address import parse_address
from blacktree.errors import BadRequest
from blacktree.job import Origin
from blacktree.runspec import RunSpec
from blacktree.spec import JobSpec, Name, spec_from
from blacktree.strict import convert

Forge = Literal["github", "gitlab", "gitea"]
Allowance = Literal["secrets", "push", "cache"]
SourceName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}\Z")]
VaultName = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9._:\[\]-]+\Z")]
Pattern = Annotated[str, Meta(min_length=1, max_length=255)]

ALLOWANCES: tuple[Allowance, ...] = ("secrets", "push", "cache")
_OWN_FIELDS = ("repository", "ref", "idempotency_key")
_DEFAULT_PORTS = {"https": "443", "http": "80", "ssh": "22", "git": "9418"}
_TAG_FIELDS = re.compile(r"\{(\w+)\}")
_NO_TAG = re.compile(r"[^A-Za-z0-9_.-]+")
_SAMPLE = "0" * 40


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is built when a forge reports a change.

    `branches`, `tags`: glob patterns (`*` matches `/` too; `!` in front excludes). A source that names no branch, tag
    or pull request builds every branch. `branches` also says into which branches pull requests are built.
    `spec`: fields of a job, without repository and ref; `push`, `run` and `secrets` are added to it.
    `allow_forks`: what pull requests from forks may have all the same; they are never deployed.
    `webhook_secret`, `forge_token`: names in the vault. `forge_url`: the forge's API, if it is elsewhere.
    """

    name: SourceName
    repository: Annotated[str, Meta(min_length=1, max_length=4096)]
    forge: Forge = "github"
    branches: Annotated[list[Pattern], Meta(max_length=100)] = []
    tags: Annotated[list[Pattern], Meta(max_length=100)] = []
    pull_requests: bool = False
    spec: dict[str, Any] = {}
    push: bool = False
    run: RunSpec | None = None
    secrets: Annotated[list[Name], Meta(max_length=64)] = []
    supersede: bool = True
    allow_forks: Annotated[list[Allowance], Meta(max_length=4)] = []
    webhook_secret: VaultName | None = None
    forge_token: VaultName | None = None
    forge_url: Annotated[str, Meta(max_length=1024)] | None = None

    def takes_branch(self, branch: str) -> bool:
        """Whether pushes to this branch are built."""
        if not self.branches:
            return not self.tags and not self.pull_requests
        return fits(branch, self.branches)

    def takes_tag(self, tag: str) -> bool:
        """Whether pushes of this tag are built."""
        return fits(tag, self.tags)

    def takes_pull_request(self, into: str) -> bool:
        """Whether pull requests into this branch are built."""
        return self.pull_requests and (not self.branches or fits(into, self.branches))


def source_from(value: dict[str, Any], where: str = "source") -> Source:
    """A source from decoded JSON or TOML, checked. Raises `BadRequest` with the path."""
    allowed = value.get("allow_forks")
    if isinstance(allowed, list) and "deployment" in allowed:
        path = f"{where}.allow_forks[{allowed.index('deployment')}]"
        raise _refused(path, "what comes from a fork is never deployed", "leave `deployment` out")
    return checked(convert(value, Source, where=where), where)


def checked(source: Source, where: str = "source") -> Source:
    """The source itself, if it can ever work. Raises `BadRequest` with the path."""
    address = parse_address(source.repository, allow_local=True, where=f"{where}.repository")
    if address.local:
        raise BadRequest(
            f"{where}.repository: is a path on a worker's own disk",
            path=f"{where}.repository",
            code="local_source_refused",
            advice="a source is a repository of a forge: use its https or ssh address",
        )
    for name in _OWN_FIELDS:
        if name in source.spec:
            raise _refused(f"{where}.spec.{name}", "is the source's own to say", "leave it out of `spec`")
    if source.forge_url is not None:
        parts = urlsplit(source.forge_url)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or "@" in parts.netloc:
            advice = "write it like https://git.example.org/api/v1"
            raise _refused(f"{where}.forge_url", "is no http or https address", advice)
    sample = Origin(source=source.name, branch="main", tag="v1", pull_request=1, commit=_SAMPLE)
    try:
        job_spec(source, sample)
    except BadRequest as error:
        path = error.path.replace("spec", f"{where}.spec", 1)
        message = (
            error.message.replace("spec", f"{where}.spec", 1) if error.message.startswith("spec") else error.message
        )
        raise BadRequest(message, path=path, code=error.code, advice=error.advice) from None
    return source


def fits(name: str, patterns: list[str]) -> bool:
    """Whether a branch or tag matches one of the patterns and none that begins with `!`."""
    wanted = any(fnmatch.fnmatchcase(name, each) for each in patterns if not each.startswith("!"))
    return wanted and not any(fnmatch.fnmatchcase(name, each[1:]) for each in patterns if each.startswith("!"))


def repository_key(repository: str) -> str:
    """`host[:port]/path`, the same for every form of one repository's address: https, ssh, git, scp-like.

    Forges tell upper from lower case in no part of it. Raises `BadRequest` for what is no address.
    """
    address = parse_address(repository, allow_local=False, where="repository")
    path = unquote(address.path).strip("/").removesuffix(".git").rstrip("/")
    port = "" if address.port in ("", _DEFAULT_PORTS.get(address.scheme)) else f":{address.port}"
    return f"{address.host.rstrip('.')}{port}/{path}".lower()


def job_spec(source: Source, origin: Origin) -> JobSpec:
    """What is built for this. An untrusted origin gets no more than the source allows by name. Raises `BadRequest`."""
    value: dict[str, Any] = {**source.spec, "repository": source.repository, "ref": origin.commit}
    if source.push:
        value["push"] = True
    if source.run is not None:
        value["run"] = msgspec.to_builtins(source.run)
    if source.secrets:
        value["secrets"] = list(dict.fromkeys([*source.spec.get("secrets", []), *source.secrets]))
    if isinstance(tags := value.get("tags"), list):
        value["tags"] = filled_tags(tags, origin)
    return restricted(spec_from(value), origin)


def filled_tags(tags: list[Any], origin: Origin) -> list[Any]:
    """The template's tags with `{branch}`, `{tag}`, `{commit}`, `{short}`, `{pull_request}` filled in.

    One whose place is empty for this event is left out, and so is a double.
    """
    words = {
        "branch": _as_tag(origin.branch) if origin.pull_request is None else "",
        "tag": _as_tag(origin.tag),
        "commit": origin.commit,
        "short": origin.commit[:12],
        "pull_request": "" if origin.pull_request is None else str(origin.pull_request),
    }
    filled: list[Any] = []
    for tag in tags:
        if not isinstance(tag, str):
            filled.append(tag)
            continue
        if any(words.get(name) == "" for name in _TAG_FIELDS.findall(tag)):
            continue
        text = _TAG_FIELDS.sub(lambda found: words.get(found[1], found[0]), tag)[:128]
        if text not in filled:
            filled.append(text)
    return filled


def _as_tag(word: str) -> str:
    return _NO_TAG.sub("-", word).lstrip(".-")[:100]


def restricted(spec: JobSpec, origin: Origin | None) -> JobSpec:
    """The spec without what an untrusted origin may not have: secrets, push, deployment, the shared cache.

    Its image bears a tag of its own, so that no tag that others use is moved.
    """
    if origin is None or origin.trusted:
        return spec
    changes: dict[str, Any] = {"run": None}
    if not origin.may("secrets"):
        changes["secrets"] = []
    if not origin.may("push"):
        changes |= {"push": False, "tags": [f"fork-{origin.pull_request or 0}-{origin.commit[:12]}"]}
    if not origin.may("cache"):
        # The mounts of `RUN --mount=type=cache` are shared too: BuildKit keeps those of this name space apart.
        space = {"BUILDKIT_CACHE_MOUNT_NS": f"fork-{origin.source}-{origin.pull_request or 0}"}
        changes |= {"cache_from": [], "no_cache": True, "build_args": {**spec.build_args, **space}}
    return msgspec.structs.replace(spec, **changes)


def _refused(path: str, why: str, advice: str = "") -> BadRequest:
    return BadRequest(f"{path}: {why}", path=path, code="invalid", advice=advice)
