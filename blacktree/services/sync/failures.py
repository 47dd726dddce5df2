"""What git said, as our errors: the one table of this border. Pure."""

import re

from blacktree.errors import StepFailed

DISK_ADVICE = "free space in the worker's state directory or lower `mirror_budget_bytes`"
# (what git prints in the C locale, code, message, advice, whether a later attempt can succeed); the first match wins.
_TABLE: list[tuple[str, str, str, str, bool]] = [
    (
        r"No space left on device|Disk quota exceeded",
        "disk_full",
        "the worker's disk is full",
        DISK_ADVICE,
        True,
    ),
    (
        r"lazy fetching disabled|from promisor remote",
        "repository_unreadable",
        "it is a partial clone, which lacks files",
        "build the repository that it was cloned from, or clone that whole (without `--filter`)",
        False,
    ),
    (
        r"GnuTLS recv error|non-properly terminated|SSL_read|SSL_ERROR_SYSCALL",
        "fetch_interrupted",
        "the host broke off in the middle",
        "",
        True,
    ),
    (
        r"SSL certificate problem|server certificate verification failed|certificate subject name|SSL peer certificate"
        r"|gnutls_handshake\(\) failed|SSL routines|SSL_ERROR|TLS connect error|unable to get local issuer",
        "tls_failed",
        "the host's TLS certificate was not accepted",
        "install the host's certificate authority on the worker (GIT_SSL_CAINFO is honoured)",
        False,
    ),
    (
        r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|No .* host key is known",
        "host_key_unknown",
        "the ssh host's key is not a known one",
        "add the host's key to the worker's `ssh_known_hosts_file`",
        False,
    ),
    (
        r"Authentication failed|could not read (?:Username|Password)|Permission denied \((?:publickey|passw|keyb)"
        r"|returned error: 40[13]|Access denied|Permission to .* denied|access denied or repository not exported",
        "credentials_needed",
        "the repository needs credentials, does not exist, or refused the ones of this worker",
        "check the address, and the worker's `git_credentials_file` or `ssh_key_file`",
        False,
    ),
    (
        r"repository '[^']*' not found|Repository not found|does not appear to be a git repository"
        r"|returned error: 404|not exported|repository '[^']*' does not exist|no such repository"
        r"|project you were looking for could not be found",
        "repository_not_found",
        "there is no such repository",
        "check the address; a private repository without credentials looks the same",
        False,
    ),
    (
        r"couldn't find remote ref|not our ref|unadvertised object|no such remote ref|bad object [0-9a-f]{40}",
        "ref_not_found",
        "the repository has no such branch, tag or commit",
        "check the ref; was it pushed?",
        False,
    ),
    (
        r"Operation too slow|Operation timed out after|Timeout was reached|timed out after",
        "repository_stalled",
        "the host stopped answering",
        "",
        True,
    ),
    (
        r"Could not resolve (?:host|proxy|hostname)|unable to look up|Name or service not known|Failed to connect"
        r"|Couldn't connect|Connection refused|Connection timed out|No route to host|Network is unreachable"
        r"|unable to connect to|Connection reset by peer|Empty reply from server|Connection closed by",
        "host_unreachable",
        "the host cannot be reached",
        "check the address and the worker's network",
        True,
    ),
    (
        r"transport '[^']*' not allowed|Protocol .* not supported|protocol '[^']*' is not supported",
        "repository_refused",
        "the host led to a protocol that is not allowed",
        "",
        False,
    ),
    (
        r"not valid: (?:is this a git repository|could not determine hash)|invalid server response|protocol error"
        r"|bad line length|bad pack header|expected flush|invalid index-pack output|unexpected response",
        "repository_answer_invalid",
        "the host answered with something that is not git",
        "check that the address is the one that `git clone` takes",
        False,
    ),
    (
        r"returned error: (?:5\d\d|429)|RPC failed|early EOF|unexpected disconnect|hung up unexpectedly"
        r"|remote end hung up|transfer closed|Recv failure|index-pack failed|HTTP/2 stream|fetch-pack: invalid",
        "fetch_interrupted",
        "the host broke off in the middle",
        "",
        True,
    ),
    (
        r"dubious ownership|Permission denied",
        "repository_unreadable",
        "the repository cannot be read by the worker",
        "check who owns it and its modes",
        False,
    ),
]
# How far a host is: no reason why it failed.
_COUNTING = re.compile(r"remote: (?:Enumerating|Counting|Compressing|Total|warning:)")
_COMPILED = [(re.compile(row[0], re.IGNORECASE), *row[1:]) for row in _TABLE]

# What git prints when its own store is damaged, which a new mirror mends.
_CORRUPT = re.compile(
    r"not a git repository: |object file .* is empty|loose object .* is corrupt|is corrupt\b|corrupt loose|packfile .* "
    r"cannot be accessed|does not match index|inflate: data stream error|unable to unpack|missing (?:blob|tree|commit)"
    r"|does not point to a valid object|bad tree|index file .* is too small|wrong index|bad signature|bad config"
    r"|unable to read tree|invalid object|bad object|unable to find [0-9a-f]{40}|hash mismatch|unable to read sha1"
    r"|unresolved deltas|file .*\.idx|bad ref|broken ref|could not (?:parse|read) HEAD"
    r"|did not send all necessary objects"
    r"|cannot read|not a valid object name|could not get object info|unable to parse",
    re.IGNORECASE,
)


def is_corruption(stderr: str) -> bool:
    """Whether this is about the mirror itself and not about the host."""
    return bool(_CORRUPT.search(stderr)) and "not our ref" not in stderr


def failure(stderr: str, code: int, what: str) -> StepFailed:
    """The error for a git that ended with `code` while it was to do `what`; `stderr` is already masked."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", stderr) if line.strip()]
    telling = (line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ssh:")))
    said = next((line for line in telling if not _COUNTING.match(line)), "")
    said = said or (lines[-1] if lines else f"git ended with {code}")
    for pattern, name, message, advice, again in _COMPILED:
        if pattern.search(stderr):
            return StepFailed(
                f"{what}: {message} ({said[:300]})", code=name, advice=advice, again=again, exit_code=code
            )
    return StepFailed(f"{what}: {said[:300]}", code="git_failed", exit_code=code)
