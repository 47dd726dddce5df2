"""Everything the door can be asked: one table, from which routes and websocket methods are wired and described."""

from blacktree.api.table.deployments import DEPLOYMENTS
from blacktree.api.table.farm import FARM
from blacktree.api.table.jobs import JOBS
from blacktree.api.table.notify import NOTIFY
from blacktree.api.table.operation import Concerns, Http, Notification, Operation, Shape, Socket
from blacktree.api.table.pages import PAGES
from blacktree.api.table.secrets import SECRETS
from blacktree.api.table.sources import SOURCES
from blacktree.api.table.tokens import TOKENS

__all__ = [
    "COMMON_ERRORS",
    "METHODS",
    "OPERATIONS",
    "ROUTES",
    "Concerns",
    "Http",
    "Notification",
    "Operation",
    "Shape",
    "Socket",
]

# Routes are looked for in this order: what is asked most comes first.
OPERATIONS: dict[str, Operation] = {
    each.name: each for each in (*JOBS, *FARM, *DEPLOYMENTS, *SOURCES, *NOTIFY, *SECRETS, *TOKENS, *PAGES)
}
ROUTES: dict[str, Operation] = {name: each for name, each in OPERATIONS.items() if each.http is not None}
METHODS: dict[str, Operation] = {name: each for name, each in OPERATIONS.items() if each.socket is not None}
COMMON_ERRORS = (
    "unauthorized",
    "role_missing",
    "farm_wide",
    "rate_limited",
    "not_allowed",
    "host_not_allowed",
    "origin_not_allowed",
    "unavailable",
    "internal",
)
