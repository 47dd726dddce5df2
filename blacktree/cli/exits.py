"""Exit codes, and how an error becomes one line: what broke, then what to do next (contract.md, section 1)."""

import errno
import re
from collections.abc import Iterator

from blacktree.errors import BadRequest, BlacktreeError, Broken, NotFound, PeerLost, Unavailable

OK = 0
FAILED = 1
USAGE = 2
CANCELED = 3
TIMED_OUT = 4
LOST = 5
UNREACHABLE = 6
BUG = 70
LEFT_RUNNING = 130
BROKEN_PIPE = 141

# Not "try again": somebody has to change something on this machine first.
_OURS = ("address_in_use", "cannot_listen", "state_in_use")
# A regular expression tells a person little.
_MATCHING = re.compile(r"Expected `str` matching regex '.*'")
_FORMS = {
    "pool": "small letters, digits and `-`, at most 32",
    "image": "a name such as registry.example/team/app, in small letters",
    "tags": "letters, digits, `.`, `_` and `-`, at most 128, beginning with a letter, a digit or `_`",
    "platform": "OS/ARCHITECTURE, such as linux/arm64",
    "platforms": "OS/ARCHITECTURE, such as linux/arm64",
    "secrets": "letters, digits, `.`, `_` and `-`",
    "run.secrets": "letters, digits, `.`, `_` and `-`",
    "run.name": "small letters, digits and `-`, at most 63, with a letter or a digit at both ends",
    "source.name": "small letters, digits, `.`, `_` and `-`, at most 63",
    "worker.pool": "small letters, digits and `-`, at most 32",
    "worker.id": "letters, digits, `.`, `_` and `-`, at most 64, beginning with a letter or a digit",
    "target.name": "small letters, digits, `.`, `_` and `-`, at most 63",
}
_INDEX = re.compile(r"\[[^]]*\]")
JOB_CODES = {"succeeded": OK, "failed": FAILED, "canceled": CANCELED, "timed_out": TIMED_OUT, "lost": LOST}


class Unreachable(PeerLost):
    """The server does not answer, or not as a server of ours would."""

    default_code = "unreachable"


def causes(error: BaseException) -> Iterator[BaseException]:
    """The leaves of an exception group, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from causes(each)
    else:
        yield error


def code_for(error: BaseException) -> int:
    """The exit code of one cause."""
    match error:
        case KeyboardInterrupt():
            return LEFT_RUNNING
        case BrokenPipeError():
            return BROKEN_PIPE
        case Broken():
            return BUG
        case Unavailable():
            return USAGE if error.code in _OURS else UNREACHABLE
        case BlacktreeError() | OSError():
            return USAGE
    return BUG


def line_for(error: BaseException) -> str:
    """One line for a person, without the program's name; empty if there is nothing to say."""
    match error:
        case KeyboardInterrupt() | BrokenPipeError():
            return ""
        case Broken():
            text = f"internal error: {error}; please report it, with the output of the same command and --debug"
        case Unavailable(code="server_unreachable"):
            text = f"{error.message}; {error.advice} Start one with `blacktree up`, or name another with --server"
        case NotFound(advice="") if error.message.startswith("no job"):
            text = f"{error.message}; `blacktree jobs` lists them"
        case BadRequest() if found := _MATCHING.search(error.message):
            before, after = error.message[: found.start()], error.message[found.end() :]
            text = f"{before}is not of the form that it needs{after}{_form(error.path)}"
        case BlacktreeError():
            text = str(error)
        case OSError():
            text = _system(error)
        case _:
            text = f"internal error: {type(error).__name__}: {error}; run it again with --debug for the traceback"
    return " ".join(text.split())


def _form(path: str) -> str:
    name = _INDEX.sub("", path.removeprefix("spec.").removeprefix("config."))
    return f": {_FORMS[name]}" if name in _FORMS else ""


def _system(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    text = f"{where}{error.strerror or error}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{text}; another program listens there: choose another address with --listen, or port 0 for any"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"{text}; check who owns it and that this user may use it"
        case errno.ENOSPC | errno.EDQUOT:
            return f"{text}; free some space and start again"
    return text
