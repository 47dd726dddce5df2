"""The trail that acts leave: who, from where, what, on what, and how it ended. Never what was sent along."""

import msgspec

from blacktree.api.auth import Actor
from blacktree.audit import MOST_TEXT, AuditEntry
from blacktree.clock import now
from blacktree.errors import BlacktreeError
from blacktree.orchestrator.auditcontrol import AuditControl
from blacktree.token import Token


class _Named(msgspec.Struct, frozen=True):
    id: str = ""
    name: str = ""
    kind: str = ""

    @property
    def text(self) -> str:
        return "/".join(part for part in (self.kind, self.id or self.name) if part)


class _Spec(msgspec.Struct, frozen=True):
    repository: str = ""


class _Told(_Named, frozen=True):
    spec: _Spec = _Spec()
    deployment: _Named = _Named()
    token: _Named = _Named()
    repository: str = ""


_asked = msgspec.json.Decoder(_Named).decode
_told = msgspec.json.Decoder(_Told).decode


class Trail:
    """Writes one entry for each act."""

    def __init__(self, audit: AuditControl) -> None:
        self._audit = audit

    def left(
        self, actor: Actor, via: str, action: str, *, target: str = "", told: bytes = b"", error: str = ""
    ) -> None:
        """An act of somebody. `told`: the JSON that they were answered; `error`: its code, if it failed."""
        answer = _Told()
        if not error and told:
            try:
                answer = _told(told)
            except (msgspec.MsgspecError, UnicodeError):
                pass
        found = answer.text or answer.deployment.text or answer.token.text
        if found and target and not target.endswith(found):
            found = f"{target} -> {found}"
        self._audit.note(
            AuditEntry(
                time=now(),
                actor=actor.name,
                token=actor.token,
                address=actor.address,
                via="browser" if actor.ambient else via,
                action=action,
                target=_plain(found or target),
                repository=_plain(answer.spec.repository or answer.repository),
                outcome=error or "ok",
            )
        )

    def let_in(self, token: Token, address: str) -> None:
        """A browser that has a session from now on."""
        self.left(Actor(token.name, True, token.id, address=address), "browser", "login")


def named_in(params: bytes) -> str:
    """The id or name that a method was asked about."""
    try:
        return _asked(params).text
    except (msgspec.MsgspecError, UnicodeError):
        return ""


def code_of(error: BaseException) -> str:
    """What is written down of a failure."""
    if isinstance(error, BlacktreeError):
        return error.code
    return "internal" if isinstance(error, Exception) else "left"


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:MOST_TEXT])
