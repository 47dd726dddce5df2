"""Which user, token or key a git host is shown. Values reach git by its environment only: no argv, URL or config."""

import os
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from blacktree.address import Address
from blacktree.config import WorkerConfig
from blacktree.errors import StepFailed

# Answers git's two questions for this one scheme and host, and nothing else: a redirect to another host asks in vain.
ASKPASS = """#!/bin/sh
case "$1" in
"Username for '$BLACKTREE_GIT_SCHEME://$BLACKTREE_GIT_PLACE': ") printf '%s\\n' "$BLACKTREE_GIT_USER" ;;
"Password for '$BLACKTREE_GIT_SCHEME://"*"@$BLACKTREE_GIT_PLACE': ") printf '%s\\n' "$BLACKTREE_GIT_PASSWORD" ;;
*) exit 1 ;;
esac
"""


class Credential(msgspec.Struct, frozen=True):
    """A line of the credentials file. Never printed."""

    scheme: str
    place: str
    path: str
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credential({self.scheme}://{self.place})"

    def fits(self, address: Address) -> bool:
        """Same scheme and host, and the address is the line's path or below it."""
        own, other = (path.strip("/").removesuffix(".git") for path in (self.path, address.path))
        return (
            self.scheme == address.scheme
            and self.place == address.place
            and (not own or other == own or other.startswith(own + "/"))
        )


def for_clone(address: Address, token: str) -> Credential | None:
    """A token that came with a job, as a credential for exactly this repository: not for others of its host, which a
    submodule could name. The user's name is the one that GitHub documents; the other hosts take any."""
    if not token or address.scheme not in ("https", "http"):
        return None
    return Credential(address.scheme, address.place, address.path, "x-access-token", token)


class Credentials:
    """All that a worker may show to git hosts. The files are read anew for each build: tokens rotate."""

    def __init__(self, config: WorkerConfig, own: Credential | None = None) -> None:
        """`own`: what came with the job; where it fits it goes before all that the worker has."""
        self._config = config
        self._known = [own] if own is not None else []
        if config.git_credentials_file:
            self._known += read_credentials(Path(config.git_credentials_file))

    @property
    def secrets(self) -> list[bytes]:
        """Every password, for the masker."""
        return [credential.password.encode() for credential in self._known]

    def find(self, address: Address) -> Credential | None:
        """The credential for an address; the longest path wins."""
        fitting = [each for each in self._known if each.fits(address)]
        return max(fitting, key=lambda each: len(each.path.strip("/")), default=None)

    def environment(self, address: Address, askpass: Path, ambient: Mapping[str, str]) -> dict[str, str]:
        """What git's environment needs for this address. Raises `StepFailed` for an ssh key that others can read."""
        if address.scheme == "ssh":
            return self._ssh(ambient)
        credential = self.find(address)
        if credential is None:
            return {"GIT_ASKPASS": str(askpass)}
        return {
            "GIT_ASKPASS": str(askpass),
            "BLACKTREE_GIT_SCHEME": credential.scheme,
            "BLACKTREE_GIT_PLACE": credential.place,
            "BLACKTREE_GIT_USER": credential.user,
            "BLACKTREE_GIT_PASSWORD": credential.password,
        }

    def _ssh(self, ambient: Mapping[str, str]) -> dict[str, str]:
        words = ["ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
        words += [
            "-o",
            f"ConnectTimeout={max(1, int(self._config.git_stall_seconds))}",
            "-o",
            "ClearAllForwardings=yes",
        ]
        if self._config.ssh_known_hosts_file:
            words += ["-o", f"UserKnownHostsFile={_ssh_quoted(self._config.ssh_known_hosts_file)}"]
            words += ["-o", "GlobalKnownHostsFile=/dev/null"]
        variables = {}
        if self._config.ssh_key_file:
            refuse_readable_by_others(Path(self._config.ssh_key_file), "the ssh key", "ssh_key_unsafe")
            words += ["-i", self._config.ssh_key_file, "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"]
        elif agent := ambient.get("SSH_AUTH_SOCK"):
            variables["SSH_AUTH_SOCK"] = agent
        # git hands this to a shell; every word in it is ours or quoted.
        return variables | {"GIT_SSH_COMMAND": shlex.join(words), "GIT_SSH_VARIANT": "ssh"}


def _ssh_quoted(path: str) -> str:
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def read_credentials(path: Path) -> list[Credential]:
    """The lines of a file in git-credential-store(1)'s format. Raises `StepFailed`, never showing a line."""
    refuse_readable_by_others(path, "the git credentials file", "credentials_unsafe")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise _unreadable(path, "the git credentials file", "credentials_unsafe") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            parts = urlsplit(line.strip())
            place = parts.netloc.rpartition("@")[2].lower()
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
        except ValueError:
            parts, place, user, password = urlsplit(""), "", "", ""
        if (
            parts.scheme not in ("https", "http")
            or not place
            or not user
            or any(c in user + password for c in "\n\r\0")
        ):
            raise StepFailed(
                f"line {number} of the git credentials file {path} is not understood",
                code="credentials_unsafe",
                advice="each line has the form https://user:token@host or https://user:token@host/path",
            )
        found.append(Credential(parts.scheme, place, unquote(parts.path), user, password))
    return found


def refuse_readable_by_others(path: Path, what: str, code: str) -> None:
    """Raise `StepFailed` unless `path` is a regular file that only its owner can read."""
    try:
        status = os.stat(path)
    except OSError:
        raise _unreadable(path, what, code) from None
    if not stat.S_ISREG(status.st_mode):
        raise StepFailed(f"{what} {path} is not a regular file", code=code)
    if status.st_mode & 0o077:
        raise StepFailed(f"{what} {path} can be read by others", code=code, advice=f"run: chmod 600 {path}")


def _unreadable(path: Path, what: str, code: str) -> StepFailed:
    return StepFailed(
        f"{what} {path} cannot be read", code=code, advice="check the worker's configuration and the file's owner"
    )
