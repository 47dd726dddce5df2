"""Who did what at the door, as it is kept. No value that anybody sent is in here but names and ids."""

from datetime import datetime

import msgspec

MOST_TEXT = 200


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One act. `seq` rises, with gaps. `outcome`: `ok`, or the error's code.

    `token` is the id of the token, `actor` its name; `via` is `http`, `websocket` or `browser`; `action` is a method's
    name such as `job.submit`, `target` the id or name that it was about.
    """

    seq: int = 0
    time: datetime
    actor: str
    token: str
    address: str
    via: str
    action: str
    target: str = ""
    repository: str = ""
    outcome: str = "ok"
