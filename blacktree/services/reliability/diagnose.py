"""From what a failed build printed last to what probably went wrong and what to do. Pure."""

import re
from collections.abc import Sequence

import msgspec


class Diagnosis(msgspec.Struct, frozen=True):
    """A likely cause: a guess, told as one."""

    code: str
    cause: str
    advice: str


# The first match wins: what explains others (a full disk, a platform) stands before what it causes.
_TABLE: list[tuple[str, str, str, str]] = [
    (
        r"no space left on device|disk quota exceeded|ENOSPC",
        "disk_full",
        "the disk is full",
        "free space on the worker (`docker system df` shows where it went)",
    ),
    (
        r"exec format error|does not match the (?:specified|detected) (?:host )?platform|rosetta error",
        "wrong_platform",
        "a program for another processor was run",
        "set `platform` to the base image's, or install emulation (binfmt, qemu) on the worker",
    ),
    (
        r"out of memory|cannot allocate memory|OOMKilled|heap out of memory|signal: killed|MemoryError"
        r"|virtual memory exhausted|fatal error: Killed signal",
        "out_of_memory",
        "the build ran out of memory",
        "give the worker more memory, run fewer builds at once (`slots`), or compile with fewer jobs",
    ),
    (
        r"unauthorized|authentication required|denied: requested access|pull access denied|insufficient_scope"
        r"|no basic auth credentials",
        "registry_denied",
        "the registry refused access to an image",
        "check the image's name, and log in to its registry on the worker (`docker login`)",
    ),
    (
        r"manifest (?:for \S+ )?(?:unknown|not found)|no such image|failed to resolve source metadata"
        r"|not found: manifest|no match for platform in manifest",
        "base_missing",
        "a base image does not exist",
        "check name, tag and platform in FROM",
    ),
    (
        r"toomanyrequests|rate limit|too many requests",
        "rate_limited",
        "a host limits how often it may be asked",
        "try later, log in, or use a mirror",
    ),
    (
        r"temporary failure (?:in name resolution|resolving)|could not resolve|name or service not known|no such host"
        r"|EAI_AGAIN|ENOTFOUND|server misbehaving|bad address '",
        "dns",
        "a name could not be resolved",
        "check the engine's DNS settings; does the RUN need the network?",
    ),
    (
        r"connection (?:refused|timed out|reset)|network is unreachable|no route to host|i/o timeout|ETIMEDOUT"
        r"|TLS handshake timeout|failed to connect|could not connect",
        "network",
        "a host could not be reached",
        "check the worker's network and proxy settings (proxies are build args)",
    ),
    (
        r"certificate verify failed|x509: |self[- ]signed certificate|unable to get local issuer",
        "tls",
        "a TLS certificate was not accepted",
        "add the certificate authority to the base image",
    ),
    (
        r"failed to (?:compute|calculate) (?:cache key|checksum)|COPY failed|ADD failed|file not found in build context"
        r"|forbidden path outside the build context|no source files were specified",
        "copy_source_missing",
        "COPY or ADD names a file that the context does not have",
        "paths are relative to `context`; is the file committed, and not in .dockerignore?",
    ),
    (
        r"unable to locate package|has no installation candidate|no matching distribution|could not find a version"
        r"|no matching package|\(no such package\)|unable to find a match|E404|404 Not Found|package .* is not in"
        r"|target not found:",
        "package_missing",
        "a package was not found",
        "check its name and version; an apt index may be stale: `apt-get update` in the same RUN",
    ),
    (
        r"unknown instruction|dockerfile parse error|failed to parse dockerfile|syntax error near unexpected"
        r"|failed to solve: dockerfile",
        "syntax",
        "something is misspelt",
        "see the line that is named",
    ),
    (
        r"permission denied|EACCES|operation not permitted|read-only file system",
        "permission_denied",
        "something may not be written, read or run",
        "check USER, modes (`COPY --chmod`), and that scripts are executable in git",
    ),
    (
        r"command not found|: not found\b|executable file not found|no such file or directory|can't open file"
        r"|ModuleNotFoundError|Cannot find module",
        "not_found",
        "a program or file is not there",
        "install it in an earlier step; scripts with CRLF line ends look the same",
    ),
]
_COMPILED = [(re.compile(row[0], re.IGNORECASE), Diagnosis(*row[1:])) for row in _TABLE]

_BY_CODE = {
    137: Diagnosis(
        "out_of_memory",
        "the command was killed, most likely for lack of memory",
        "give the worker more memory, run fewer builds at once (`slots`), or compile with fewer jobs",
    ),
    139: Diagnosis("crashed", "the command crashed (segmentation fault)", "is the base image for this processor?"),
    126: Diagnosis("permission_denied", "the command cannot be executed", "is the script executable in git?"),
    127: Diagnosis("not_found", "the command is not there", "install it in an earlier step, or check PATH"),
}


def diagnose(last_lines: Sequence[str], exit_code: int | None = None) -> Diagnosis | None:
    """What most likely went wrong, from the last lines (the latest count most) and the exit code; None: no idea."""
    if exit_code in (137, 139):  # killed: whatever it printed came before
        return _BY_CODE[exit_code]
    for count in (3, 20, len(last_lines)):
        text = "\n".join(last_lines[-count:]) if count else ""
        for pattern, diagnosis in _COMPILED:
            if pattern.search(text):
                return diagnosis
    return _BY_CODE.get(exit_code) if exit_code is not None else None
