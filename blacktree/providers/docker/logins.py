"""Registry logins as `docker login` left them: `config.json`, and the credential helpers that it names."""

import base64
import binascii
import json
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from blacktree.providers.base import Login

HUB = "https://index.docker.io/v1/"
_HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_HELPER = re.compile(r"[A-Za-z0-9._-]+\Z")
_HELPER_SECONDS = 10
_MAX_CONFIG_BYTES = 4 << 20


def config_path(environ: Mapping[str, str]) -> Path:
    """`config.json` in `DOCKER_CONFIG`, else in ~/.docker."""
    return Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME", "/"), ".docker")) / "config.json"


def reader(environ: Mapping[str, str]) -> Callable[[str], Login | None]:
    """A `read_login` that looks where this environment says."""
    return lambda host: read_login(host, environ)


def read_login(host: str, environ: Mapping[str, str]) -> Login | None:
    """The login for a registry host, or None. Blocks (a helper may run, at most 10 s): call it in a thread.

    Read anew each time: `docker login` takes effect at once. A broken file or helper counts as no login.
    """
    path = config_path(environ)
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(_MAX_CONFIG_BYTES))
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    names = _names(host)
    helpers = config.get("credHelpers")
    helper = next((helpers[name] for name in names if name in helpers), None) if isinstance(helpers, dict) else None
    helper = helper or config.get("credsStore")
    if isinstance(helper, str) and (found := _from_helper(helper, names, environ)):
        return found
    auths = config.get("auths")
    if isinstance(auths, dict):
        for key, value in auths.items():
            if _bare(key) in names and isinstance(value, dict) and (found := _from_auth(value)):
                return found
    return None


def _names(host: str) -> list[str]:
    bare = _bare(host)
    return [HUB, *sorted(_HUB_NAMES)] if bare in _HUB_NAMES else [bare]


def _bare(key: str) -> str:
    """A key of `auths` as a host: without scheme and path."""
    return key.partition("://")[2].partition("/")[0] if "://" in key else key.partition("/")[0]


def _from_auth(value: Mapping[str, Any]) -> Login | None:
    if isinstance(value.get("username"), str) and isinstance(value.get("password"), str):
        return Login(value["username"], value["password"])
    if value.get("identitytoken"):
        return Login("<token>", str(value["identitytoken"]))
    try:
        user, colon, password = base64.b64decode(str(value.get("auth", "")), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Login(user, password.rstrip("\0")) if colon else None


def _from_helper(helper: str, names: list[str], environ: Mapping[str, str]) -> Login | None:
    """Ask `docker-credential-NAME get`: the server's name on its input, JSON on its output, no shell."""
    if not _HELPER.match(helper):
        return None
    for name in names:
        try:
            done = subprocess.run(
                [f"docker-credential-{helper}", "get"],
                input=name.encode(),
                capture_output=True,
                timeout=_HELPER_SECONDS,
                check=True,
                env=dict(environ),
            )
            value = json.loads(done.stdout[:_MAX_CONFIG_BYTES])
        except (OSError, ValueError, subprocess.SubprocessError):
            continue
        if isinstance(value, dict) and value.get("Secret"):
            return Login(str(value.get("Username", "")), str(value["Secret"]))
    return None
