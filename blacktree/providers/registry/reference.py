"""An image's full name, read: which registry, which repository there, which tag. Pure."""

import ipaddress
from collections.abc import Collection
from hashlib import sha256

import msgspec

HUB = "docker.io"
_HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_MAX_TAG = 128
_HUB_SERVER = "registry-1.docker.io"


class Reference(msgspec.Struct, frozen=True):
    """`host` as it stands in the name (`docker.io` where none does), `repository` without it."""

    host: str
    repository: str
    tag: str

    @property
    def server(self) -> str:
        """The host that answers: Docker Hub's is another than its name says."""
        return _HUB_SERVER if self.host == HUB else self.host

    def with_tag(self, tag: str) -> "Reference":
        """The same repository's other tag."""
        return Reference(self.host, self.repository, tag)


def parse_reference(name: str) -> Reference:
    """The parts of `[host/]repository[:tag]` (a digest counts as tag), by the rules of the engine.

    >>> parse_reference("app")
    Reference(host='docker.io', repository='library/app', tag='latest')
    >>> parse_reference("localhost:5000/team/app:1")
    Reference(host='localhost:5000', repository='team/app', tag='1')
    """
    name, _, digest = name.partition("@")
    head, slash, tail = name.rpartition("/")
    last, colon, tag = tail.partition(":")
    path = f"{head}{slash}{last}" if colon else name
    first, slash, rest = path.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        host, repository = first, rest
    else:
        host, repository = HUB, path
    if host in _HUB_NAMES:
        host, repository = HUB, repository if "/" in repository else f"library/{repository}"
    return Reference(host, repository, digest or tag or "latest")


def is_loopback(host: str) -> bool:
    """Whether this `host[:port]` is this machine.

    >>> is_loopback("127.0.0.1:5000"), is_loopback("[::1]:5000"), is_loopback("localhost"), is_loopback("127.0.0.1.io")
    (True, True, True, False)
    """
    name = bare(host)
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def bare(host: str) -> str:
    """The host without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def may_be_plain(host: str, insecure: Collection[str]) -> bool:
    """Whether http will do: on this machine, and where the operator lists the host (with its port, or without)."""
    return is_loopback(host) or host in insecure or bare(host) in insecure


def push_tag(job_id: str, attempt: int, platform: str = "") -> str:
    """The tag that an attempt pushes to first: nobody else's, and within the 128 characters of a tag.

    >>> push_tag("06f1s7x2h0c9q4rt", 2, "linux/arm64/v8")
    'bt-06f1s7x2h0c9q4rt-2-linux-arm64-v8'
    """
    tag = f"bt-{job_id}-{attempt}"
    if platform:
        tag += "-" + platform.replace("/", "-")
    if len(tag) <= _MAX_TAG:
        return tag
    return f"bt-{job_id}-{attempt}-{sha256(tag.encode()).hexdigest()[:16]}"


def is_push_tag(tag: str, job_id: str) -> bool:
    """Whether this is a tag that an attempt of this job pushes to first."""
    head = f"bt-{job_id}-"
    return bool(job_id) and tag.startswith(head) and tag.removeprefix(head).partition("-")[0].isdigit()
