"""Where the engine listens: the setting, else `DOCKER_HOST`, else the usual socket."""

from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from blacktree.errors import BadRequest

DEFAULT = "unix:///var/run/docker.sock"


class Address(msgspec.Struct, frozen=True):
    """A unix socket (`path`) or, without encryption, a TCP port (`host`, `port`)."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else f"tcp://{self.host}:{self.port}"


def engine_address(setting: str, environ: Mapping[str, str]) -> Address:
    """The address from `setting` (a path or a URL) or `DOCKER_HOST`. Raises `BadRequest` with what to do instead."""
    text = setting or environ.get("DOCKER_HOST", "") or DEFAULT
    origin = "worker.engine" if setting else "DOCKER_HOST"
    if text.startswith("/"):
        return Address(path=text)
    url = urlsplit(text)
    if url.scheme == "unix" and url.path:
        return Address(path=url.path)
    if url.scheme in ("tcp", "http"):
        if environ.get("DOCKER_TLS_VERIFY") or environ.get("DOCKER_TLS"):
            raise _refused(origin, text, "TLS to an engine is not supported")
        try:
            return Address(host=url.hostname or "127.0.0.1", port=url.port or 2375)
        except ValueError:
            raise _refused(origin, text, "the port is not a number") from None
    if url.scheme == "ssh":
        raise _refused(origin, text, "ssh is not supported")
    raise _refused(origin, text, "expected unix:///path, /path or tcp://host:port")


def _refused(origin: str, text: str, why: str) -> BadRequest:
    advice = (
        "run the worker beside its engine, or forward the socket: "
        "ssh -nNT -L /run/engine.sock:/var/run/docker.sock HOST"
    )
    return BadRequest(f"{origin} is `{text}`: {why}", path=origin, code="bad_engine_address", advice=advice)
