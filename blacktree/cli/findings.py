"""What the doctor can see without talking to anybody: git, disk, files, registry logins; plain functions."""

import json
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from blacktree.inodes import files_short

OLDEST_GIT = (2, 30)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One look at one part. `problem`: builds fail or stay away; `warning`: something to know."""

    part: str
    status: Literal["ok", "warning", "problem"]
    text: str
    advice: str = ""


def git(output: str | None) -> Finding:
    """From what `git --version` said, or None if it could not be started."""
    if output is None:
        return Finding(
            part="git", status="problem", text="there is no git", advice="install the package git on every worker"
        )
    words = output.split()
    version = next((word for word in words if word[:1].isdigit()), "")
    numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    if tuple(numbers) < OLDEST_GIT:
        oldest = ".".join(map(str, OLDEST_GIT))
        return Finding(
            part="git", status="problem", text=output, advice=f"versions before {oldest} are not supported: update git"
        )
    return Finding(part="git", status="ok", text=version)


def disk(part: str, path: Path, least: int, budget: int = 0) -> Finding:
    """Free space where `path` is or will be; `least` is what must stay free, `budget` what we may fill."""
    place = _existing(path)
    free = shutil.disk_usage(place).free
    text = f"{free / 1e9:.1f} GB free for {path}"
    if free < least:
        return Finding(
            part=part,
            status="problem",
            text=f"{text}, {least / 1e9:.1f} GB must stay free",
            advice="free some space: no new build is taken until then (minimum_free_disk_bytes is the limit)",
        )
    if files := files_short(os.statvfs(place)):
        return Finding(
            part=part,
            status="problem",
            text=f"{text}, but {files}",
            advice="remove files: no new build is taken until then",
        )
    if budget and free < budget:
        return Finding(
            part=part,
            status="warning",
            text=f"{text}, the budgets allow {budget / 1e9:.1f} GB",
            advice="lower image_budget_bytes, cache_budget_bytes and mirror_budget_bytes, or give it more space",
        )
    return Finding(part=part, status="ok", text=text)


def state(part: str, path: Path) -> Finding:
    """Whether this user may write there, and nobody else may read."""
    place = _existing(path)
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding(
            part=part,
            status="problem",
            text=f"{path} cannot be written by this user",
            advice=f"chown it, or set {part.split()[0]}.state_directory",
        )
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return Finding(part=part, status="problem", text=f"{path} is on a read-only file system", advice="remount it")
    if path.exists() and path.stat().st_mode & 0o077:
        return Finding(part=part, status="warning", text=f"{path} is open to others", advice=f"run: chmod 700 {path}")
    return Finding(part=part, status="ok", text=f"{path}{'' if path.exists() else ' (made at the first start)'}")


def secret_file(part: str, path: Path) -> Finding:
    """A file that holds a secret: there, readable, and for its owner alone."""
    try:
        found = path.stat()
    except OSError as error:
        return Finding(part=part, status="problem", text=f"{path}: {error.strerror}", advice="copy or make it")
    if not os.access(path, os.R_OK):
        return Finding(part=part, status="problem", text=f"{path} cannot be read by this user", advice="chown it")
    if stat.S_IMODE(found.st_mode) & 0o077:
        return Finding(part=part, status="problem", text=f"{path} is open to others", advice=f"run: chmod 600 {path}")
    return Finding(part=part, status="ok", text=str(path))


def build_secrets(part: str, directory: Path) -> list[Finding]:
    """The files in a secret store that builds will not get, because others can read them or we cannot."""
    try:
        files = sorted(path for path in directory.iterdir() if path.is_file())
    except OSError:
        return []
    return [found for found in (secret_file(part, path) for path in files) if found.status != "ok"]


def key_file(path: Path, state: Path) -> Finding:
    """The key of the secret store: there, for its owner alone, and not beside what it seals."""
    from blacktree.errors import BadRequest
    from blacktree.keyfile import read_keys

    part = "orchestrator.secrets_key_file"
    try:
        keys = read_keys(path, apart=state)
    except BadRequest as error:
        return Finding(part=part, status="problem", text=error.message, advice=error.advice)
    if len(keys) > 1:
        return Finding(
            part=part,
            status="warning",
            text=f"{path} holds {len(keys)} keys: a rotation has not ended",
            advice="run `blacktree secret rotate-key` again",
        )
    return Finding(part=part, status="ok", text=str(path))


def secret_store(key: Mapping[str, str], count: int) -> Finding:
    """How the farm's key stands, as the door tells it."""
    if key["trouble"]:
        return Finding(
            part="secrets",
            status="problem",
            text=key["trouble"],
            advice="give the farm the key its secrets were sealed with; nothing is lost until they are removed",
        )
    if not key["id"]:
        text = "none, and no key yet" if key["place"] != "nowhere" else "no key: the farm takes no secrets"
        return Finding(part="secrets", status="ok", text=text)
    return Finding(part="secrets", status="ok", text=f"{count} kept, their key is in {key['place']}")


def registry(environ: Mapping[str, str]) -> Finding:
    """The registry logins that builds use: `config.json` in `DOCKER_CONFIG`, and its credential helpers."""
    base = environ.get("DOCKER_CONFIG") or os.path.join(environ.get("HOME", "/"), ".docker")
    path = Path(base) / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        auths, helpers = dict(content.get("auths") or {}), dict(content.get("credHelpers") or {})
        store = content.get("credsStore") or ""
    except FileNotFoundError:
        return Finding(part="registry", status="ok", text=f"no logins ({path} does not exist): public images only")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return Finding(
            part="registry", status="problem", text=f"{path} cannot be used: {error}", advice="run docker login again"
        )
    wanted = sorted({*helpers.values(), *([store] if store else [])})
    missing = [name for name in wanted if shutil.which(f"docker-credential-{name}", path=environ.get("PATH")) is None]
    if missing:
        return Finding(
            part="registry",
            status="problem",
            text=f"{path} names credential helpers that are not installed: {', '.join(missing)}",
            advice=f"install docker-credential-{missing[0]}, or remove it from that file and run docker login",
        )
    hosts = sorted({*auths, *helpers})
    return Finding(part="registry", status="ok", text=f"logins for {', '.join(hosts) or 'no host'} in {path}")


def clocks(part: str, difference_seconds: float, uncertainty_seconds: float) -> Finding:
    """Their clock against ours. Leases do not care; times in logs, TLS and tokens do."""
    text = f"differs from ours by {abs(difference_seconds):.1f} s"
    if abs(difference_seconds) > 2 + uncertainty_seconds:
        return Finding(part=part, status="warning", text=text, advice="let both machines keep time, e.g. with chrony")
    return Finding(part=part, status="ok", text=f"agree within {max(1.0, 1 + uncertainty_seconds):.0f} s")


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
