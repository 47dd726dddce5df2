"""What a forge can say, in our words, and what we say to it. Each forge has a file of its own beside this one."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs

import msgspec

from blacktree.address import parse_address
from blacktree.errors import BadRequest
from blacktree.job import Origin
from blacktree.source import Source

T = TypeVar("T")
Headers = Mapping[str, str]
"""By lower-case name."""

NO_COMMIT = "0"
MAXIMUM_DESCRIPTION = 140


class Pushed(msgspec.Struct, frozen=True, kw_only=True, tag="push"):
    """A branch or a tag now points to `commit`; before, to `before` (empty if it is new or unknown).

    `repositories`: every address the forge gives for it. `at`: when, in Unix seconds, if the forge says.
    """

    repositories: list[str]
    branch: str = ""
    tag: str = ""
    commit: str
    before: str = ""
    message: str = ""
    at: float | None = None


class PullRequest(msgspec.Struct, frozen=True, kw_only=True, tag="pull_request"):
    """A pull (merge) request has a new head, or was closed. `into`: the branch it wants to go into."""

    repositories: list[str]
    number: int
    closed: bool = False
    action: str = ""
    commit: str = ""
    before: str = ""
    into: str = ""
    fork: bool = True
    message: str = ""
    at: float | None = None


class Nothing(msgspec.Struct, frozen=True, kw_only=True, tag="nothing"):
    """Nothing to build. `ping`: the forge only wanted to know whether we are there."""

    reason: str
    ping: bool = False


Event = Pushed | PullRequest | Nothing


class StatusCall(msgspec.Struct, frozen=True, kw_only=True):
    """One request to a forge's API; `headers` bear the token."""

    url: str
    headers: dict[str, str]
    body: dict[str, Any]

    def __repr__(self) -> str:
        return f"StatusCall({self.url!r})"


class ForgeAdapter(Protocol):
    """One kind of forge: how its deliveries are checked and read, and how it is told how a build stands. Pure."""

    def delivery_id(self, headers: Headers) -> str:
        """The delivery's own name; empty if the forge gave none."""
        ...

    def event_name(self, headers: Headers) -> str:
        """What kind of event the forge says it is."""
        ...

    def check_signed(self, headers: Headers) -> None:
        """Looks at the headers' names only. Raises `NotAllowed` if the delivery bears no signature."""
        ...

    def signed(self, headers: Headers, body: bytes, secret: bytes, now: float) -> bool:
        """Whether this secret made the delivery's signature; in constant time. To be called after `check_signed`."""
        ...

    def parse(self, event: str, body: bytes) -> Event:
        """What happened. Raises `BadRequest` for a body that no such event has."""
        ...

    def status(self, source: Source, origin: Origin, report: "Report", token: str) -> StatusCall:
        """The request that puts this report at the commit."""
        ...


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a build stands. `state`: `pending`, `running`, `success`, `failure`, `error` or `canceled`."""

    state: str
    description: str
    context: str
    target_url: str = ""


def decode(body: bytes, kind: type[T], forge: str) -> T:
    """The payload as far as it is needed; what a forge adds is passed over. Raises `BadRequest`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"this is no {forge} payload: {error}", code="malformed") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the payload is not valid JSON: {error}", code="malformed") from None


def payload(body: bytes, content_type: str) -> bytes:
    """The JSON in a delivery: the body itself, or the field `payload` of a form. Raises `BadRequest`."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return body
    try:
        return parse_qs(body.decode("ascii"), max_num_fields=8, strict_parsing=True)["payload"][0].encode()
    except (KeyError, ValueError):
        advice = "choose the content type application/json in the forge's webhook settings"
        raise BadRequest("the form has no field `payload`", code="malformed", advice=advice) from None


def is_commit(text: str) -> bool:
    """Whether this is a full commit id, and not the zeros that stand for none."""
    return len(text) in (40, 64) and text.strip("0123456789abcdef") == "" and text.strip(NO_COMMIT) != ""


def pushed(ref: str, before: str, after: str, repositories: list[str], message: str, at: float | None) -> Event:
    """A push as git sees it: from `before` to `after`, zeros standing for nothing."""
    branch = ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else ""
    tag = ref.removeprefix("refs/tags/") if ref.startswith("refs/tags/") else ""
    if not branch and not tag:
        return Nothing(reason=f"{ref[:200]!r} is neither a branch nor a tag")
    if after and after.strip(NO_COMMIT) == "":
        return Nothing(reason=f"{'branch' if branch else 'tag'} {branch or tag} was deleted")
    if not is_commit(after):
        raise BadRequest(f"the push names no commit: {after[:80]!r}", code="malformed")
    return Pushed(
        repositories=[each for each in repositories if each],
        branch=branch,
        tag=tag,
        commit=after,
        before=before if is_commit(before) else "",
        message=message,
        at=at,
    )


def skipped(message: str) -> bool:
    """Whether a commit message asks not to be built."""
    text = message.lower()
    return "[skip ci]" in text or "[ci skip]" in text


def project_path(source: Source) -> str:
    """`owner/name` (GitLab: with all groups) from the source's repository."""
    return parse_address(source.repository, allow_local=False).path.strip("/").removesuffix(".git").rstrip("/")


def api_address(source: Source, tail: str) -> str:
    """The forge's API: as configured, else on the repository's own host, over https (http if the repository is)."""
    if source.forge_url:
        return source.forge_url.rstrip("/")
    address = parse_address(source.repository, allow_local=False)
    if address.scheme in ("https", "http"):
        return f"{address.scheme}://{address.place}{tail}"
    return f"https://{address.host}{tail}"


def short(text: str, most: int = MAXIMUM_DESCRIPTION) -> str:
    """One line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
