"""Which repository addresses are allowed, and what they are made of. Pure.

https, http, ssh (`ssh://` and `user@host:path`) and git; `file://` and paths only where local sources are allowed.
http and git are for intranets: they prove nothing about the host, and a credential is sent over http only if its own
line in the credentials file says http.
"""

import os
import re
from urllib.parse import unquote

import msgspec

from blacktree.errors import BadRequest

_HELPER = re.compile(r"[A-Za-z0-9+.-]*::")
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/]*)(?P<path>/.*)?\Z", re.DOTALL)
_SCP = re.compile(r"(?:(?P<user>[^@:/]+)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^:/@\[\]]+):(?P<path>.+)\Z", re.DOTALL)
_HOST = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]*)|\[[0-9A-Fa-f:.]+\])\Z")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
_PATHLIKE = re.compile(r"(?:/|\./|\.\./|\.\Z|\.\.\Z)")

SCHEMES = ("https", "ssh", "git", "http")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a repository is. `url` is what git is given; it bears no secret. `path` begins with `/` unless scp-like."""

    scheme: str
    url: str
    host: str = ""
    port: str = ""
    user: str = ""
    path: str = ""
    scp: bool = False

    @property
    def local(self) -> bool:
        return self.scheme == "file"

    @property
    def place(self) -> str:
        """`host` or `host:port`, as git names it when it asks for a password."""
        return f"{self.host}:{self.port}" if self.port else self.host


def parse_address(repository: str, *, allow_local: bool, where: str = "spec.repository") -> Address:
    """The address behind `repository`. Raises `BadRequest`: codes `repository_refused`, `local_source_refused`,
    `credentials_in_address`."""
    if any(ord(char) < 32 or ord(char) == 127 for char in unquote(repository)):
        raise _refused(where, "contains a control character")
    if repository.startswith("-"):
        raise _refused(where, "must not start with `-`")
    if helper := _HELPER.match(repository):
        raise _refused(where, f"`{helper[0]}` would run a program on the worker")
    if url := _URL.match(repository):
        return _from_url(repository, url, allow_local, where)
    if _PATHLIKE.match(repository) or ":" not in repository.split("/")[0]:
        return _from_path(repository, allow_local, where)
    if scp := _SCP.match(repository):
        user, host, path = scp["user"] or "", scp["host"], scp["path"]
        _check_host(host, where)
        if user and not _USER.match(user):
            raise _refused(where, "has a user name that ssh would not take")
        if path.startswith("-"):
            raise _refused(where, "has a path that starts with `-`")
        host = host.lower()
        url_text = f"{user}@{host}:{path}" if user else f"{host}:{path}"
        return Address(scheme="ssh", url=url_text, host=host, user=user, path=path, scp=True)
    raise _refused(where, "is no address of a git repository")


def _from_url(repository: str, url: re.Match[str], allow_local: bool, where: str) -> Address:
    scheme, authority, path = url["scheme"].lower(), url["authority"], url["path"] or ""
    if scheme == "file":
        if authority not in ("", "localhost"):
            raise _refused(where, "is a file:// URL with a host")
        return _from_path(unquote(path), allow_local, where)
    if scheme not in SCHEMES:
        raise _refused(where, f"has the scheme `{scheme}`")
    user, at, place = authority.rpartition("@")
    if at and (scheme != "ssh" or ":" in user):
        raise BadRequest(
            f"{where}: the address contains a user or password",
            path=where,
            code="credentials_in_address",
            advice="leave them out and put them into the worker's `git_credentials_file`",
        )
    if at and not _USER.match(user):
        raise _refused(where, "has a user name that ssh would not take")
    host, _, port = place.partition(":") if not place.startswith("[") else _bracketed(place)
    _check_host(host, where)
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise _refused(where, "has a port that is no number from 1 to 65535")
    if path.strip("/") == "":
        raise _refused(where, "names a host but no repository")
    if "#" in path:
        raise _refused(where, "contains `#`", advice="give branch and directory as `ref` and `context`")
    host = host.lower()
    full = f"{scheme}://{user + '@' if user else ''}{host}{':' + port if port else ''}{path}"
    return Address(scheme=scheme, url=full, host=host, port=port, user=user, path=path)


def _bracketed(place: str) -> tuple[str, str, str]:
    host, bracket, rest = place.partition("]")
    return host + bracket, ":", rest.removeprefix(":")


def _from_path(path: str, allow_local: bool, where: str) -> Address:
    if not allow_local:
        raise BadRequest(
            f"{where}: repositories on the worker's own disk are not allowed here",
            path=where,
            code="local_source_refused",
            advice="use an https, ssh or git URL, or switch on `orchestrator.allow_local_sources`",
        )
    if path == "":
        raise _refused(where, "is empty")
    full = os.path.abspath(path)
    # Not a file:// URL: git would not decode `%` in it, so the plain path is the exact one.
    return Address(scheme="file", url=full, path=full)


def _check_host(host: str, where: str) -> None:
    if not _HOST.match(host):
        raise _refused(where, "has no host that could be one")


def submodule_address(url: str, parent: Address, *, where: str) -> Address:
    """The address of a submodule: relative URLs are taken from the parent's, and never leave its host.

    A local one is allowed only to a parent that is local itself. Raises `BadRequest`.
    """
    if url.startswith(("./", "../")):
        return parse_address(_joined(url, parent, where), allow_local=parent.local, where=where)
    if _PATHLIKE.match(url) and not parent.local:
        raise _refused(where, "is a path on the worker's own disk")
    return parse_address(url, allow_local=parent.local, where=where)


def _joined(relative: str, parent: Address, where: str) -> str:
    parts = [part for part in parent.path.split("/") if part]
    for part in relative.split("/"):
        if part in ("", "."):
            continue
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            raise _refused(where, "goes above its parent's host")
    absolute = parent.path.startswith("/")
    path = ("/" if absolute else "") + "/".join(parts)
    head = parent.url[: len(parent.url) - len(parent.path)]
    return head + path


def _refused(where: str, why: str, advice: str = "") -> BadRequest:
    advice = advice or "use an address like https://host/team/app.git, ssh://git@host/team/app.git or git@host:team/app"
    return BadRequest(f"{where}: {why}", path=where, code="repository_refused", advice=advice)
