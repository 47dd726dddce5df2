"""Tokens, login links, and the record of acts."""

from blacktree.api import messages, shapes
from blacktree.api import tokens as asked
from blacktree.api.table.operation import Http, Operation, Socket
from blacktree.role import Role
from blacktree.token import NewToken

_ALL = "/api/v1/tokens"

TOKENS = (
    Operation(
        name="token.create",
        summary="A new token. Its secret is in this answer and nowhere else, ever.",
        role=Role.ADMIN,
        farm=True,
        errors=("invalid", "bad_request", "malformed", "too_large", "token_exists", "conflict"),
        result=shapes.MadeToken,
        http=Http(verb="POST", path=_ALL, body=NewToken, required=True, statuses=(201,)),
        socket=Socket(params=NewToken),
    ),
    Operation(
        name="token.list",
        summary="All tokens without their secrets; ended ones for a month.",
        role=Role.ADMIN,
        farm=True,
        errors=("bad_query", "invalid"),
        result=shapes.Tokens,
        http=Http(verb="GET", path=_ALL, query=messages.Nothing),
        socket=Socket(params=messages.Nothing),
    ),
    Operation(
        name="token.self",
        summary="The token that this is asked with, and the operations that it is let into.",
        role=Role.VIEW,
        errors=("bad_query", "invalid"),
        result=shapes.Oneself,
        http=Http(verb="GET", path=f"{_ALL}/self", query=messages.Nothing),
        socket=Socket(params=messages.Nothing),
    ),
    Operation(
        name="token.revoke",
        summary="End a token, by id or name, at once: its sessions and open websockets, too. Twice is no error.",
        role=Role.ADMIN,
        farm=True,
        errors=("bad_query", "not_found", "farm_token", "invalid", "storage_failed"),
        result=shapes.Token,
        http=Http(verb="DELETE", path=f"{_ALL}/{{name}}", query=messages.Nothing),
        socket=Socket(params=asked.TokenByName),
    ),
    Operation(
        name="token.link",
        summary="A link that lets one browser in, once, within ten minutes; for an admin also with another token.",
        role=Role.VIEW,
        errors=("not_found", "invalid", "malformed", "too_large"),
        result=shapes.LoginLink,
        http=Http(verb="POST", path="/api/v1/login-links", body=asked.AskLink, statuses=(201,)),
        socket=Socket(params=asked.AskLink),
    ),
    Operation(
        name="audit.list",
        summary="Who did what: newest first, page by page.",
        role=Role.ADMIN,
        farm=True,
        errors=("bad_query", "invalid"),
        result=shapes.AuditPage,
        http=Http(verb="GET", path="/api/v1/audit", query=asked.AskTrail),
        socket=Socket(params=asked.AskTrail),
    ),
)
