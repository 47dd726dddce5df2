"""What the door can be asked, as values: one `Operation` each, with its HTTP route, its websocket method, or both.

The handlers are wired by these (api/wiring.py), and the API's descriptions are made of them.
"""

from enum import StrEnum
from typing import Any, Literal

import msgspec

from blacktree.role import Role

Shape = Any
"""A type that msgspec can describe, or a tuple of such: either one."""

Verb = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


class Concerns(StrEnum):
    """Which repository an operation is about, and where that is found.

    `job`: the one whose id is in the path or the parameters. `spec`: the one that is submitted. `deployment`, `source`:
    the one of that name. `each`: of every element of the answer its own. `none`: no repository.
    """

    NONE = "none"
    JOB = "job"
    SPEC = "spec"
    DEPLOYMENT = "deployment"
    SOURCE = "source"
    EACH = "each"


class Http(msgspec.Struct, frozen=True, kw_only=True):
    """A route. Names in the path's braces are strings, or as `names` says.

    `query`, `body`: structs; one that is not `required` may be left out. `statuses`: of success, the usual one first.
    `media`: of the answer. `keyed`: takes an `Idempotency-Key`.
    """

    verb: Verb
    path: str
    names: dict[str, Shape] = {}
    query: Shape = None
    body: Shape = None
    required: bool = False
    takes: tuple[str, ...] = ("application/json",)
    statuses: tuple[int, ...] = (200,)
    media: str = "application/json"
    keyed: bool = False


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """What a watch sends."""

    name: str
    params: Shape
    summary: str


class Socket(msgspec.Struct, frozen=True, kw_only=True):
    """A websocket method. With `notifications` it is a watch: it is answered once, and goes on."""

    params: Shape
    notifications: tuple[Notification, ...] = ()


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """Something the door can be asked.

    `name` is the websocket method's, too, and the `operationId` of the route. `role`: the least that is needed. `farm`:
    about the farm as a whole, so that a token for some repositories may not ask.
    `errors`: the codes it can answer with, beside those that everything can (`table.COMMON_ERRORS`). `result`: what it
    answers with (None: nothing, or no JSON).
    """

    name: str
    summary: str
    role: Role
    farm: bool = False
    concerns: Concerns = Concerns.NONE
    errors: tuple[str, ...] = ()
    result: Shape = None
    http: Http | None = None
    socket: Socket | None = None

    @property
    def acts(self) -> bool:
        """Whether it changes something, so that who asked for it goes on record."""
        return self.role is not Role.NONE and self.http is not None and self.http.verb != "GET"
