"""The registry logins of one build: the farm's first, then this worker's own."""

from collections.abc import Callable, Iterator

from blacktree.errors import BadRequest
from blacktree.providers.aws.ecr import Ecr
from blacktree.providers.base import Login
from blacktree.rpc.peer import Assignment
from blacktree.secret import host_name

ReadLogin = Callable[[str], Login | None]


def with_ecr(ecr: Ecr, own: ReadLogin) -> ReadLogin:
    """This worker's own logins: for AWS's registries by its credentials there, else (and otherwise) as `own` has them.

    A `docker login` there is stale after twelve hours, so it comes second.
    """
    return lambda host: ecr.login(host) or own(host)


def login_for(assignment: Assignment, own: ReadLogin) -> ReadLogin:
    """Asks what came with the job, then `own` (which may block), unless the job is not to be trusted."""

    def login(host: str) -> Login | None:
        try:
            found = assignment.logins.get(host_name(host))
        except BadRequest:
            found = None
        if found is not None:
            return Login(found.username, found.password)
        return own(host) if assignment.trusted else None

    return login


def to_hide(assignment: Assignment) -> Iterator[bytes]:
    """What must not be seen in a log: tokens, passwords, and `user:password`, which in base64 is an HTTP header."""
    if assignment.clone_token:
        yield assignment.clone_token.encode()
    for login in assignment.logins.values():
        yield login.password.encode()
        yield f"{login.username}:{login.password}".encode()
