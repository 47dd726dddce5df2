"""The tokens of the door: kept as hashes, all of them in memory."""

from datetime import datetime, timedelta

import msgspec
import structlog
import trio

from blacktree.clock import now
from blacktree.errors import BlacktreeError, Conflict, NotFound
from blacktree.storage.base import DocumentTable
from blacktree.strict import UNREADABLE, nearest
from blacktree.token import FARM, NewToken, Token, id_in, make_token

KIND = "token"
MAXIMUM_TOKENS = 10_000
REMEMBERED = timedelta(days=30)
REVOKE_SECONDS = 5.0

log = structlog.get_logger()
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Token).decode


class Tokens:
    """See `TokenControl`."""

    def __init__(self, documents: DocumentTable) -> None:
        self._documents = documents
        self._known: dict[str, Token] = {}
        self._version = 1
        self._changed = trio.Event()
        self._making = trio.Lock()

    async def load(self) -> None:
        """From the record; to be called once. A record that cannot be read lets nobody in, and is told."""
        after = ""
        while page := await self._documents.documents(KIND, after=after):
            after = page[-1][0]
            for name, body in page:
                try:
                    self._known[name] = _decode(body)
                except UNREADABLE:
                    log.error("a token cannot be read; it is good for nothing", token=name)

    async def create(self, wanted: NewToken, *, actor: str = "") -> tuple[Token, str]:
        """See `TokenControl.create`."""
        async with self._making:
            await self._forget(now() - REMEMBERED)
            token, text = make_token(wanted, self._known, now(), actor)
            if token.name == FARM or self._named(token.name) is not None:
                raise Conflict(
                    f"there is a token {token.name} already",
                    code="token_exists",
                    advice="choose another name, or revoke that one first",
                )
            if len(self._known) >= MAXIMUM_TOKENS:
                raise Conflict(f"there are {MAXIMUM_TOKENS} tokens already", advice="revoke what is not needed")
            await self._documents.revise(KIND, token.id, lambda _: _encode(token))
            self._put(token)
        return token, text

    async def revoke(self, name: str, *, actor: str = "") -> Token:
        """See `TokenControl.revoke`."""
        token = self.get(name)
        if token.revoked_at is not None:
            return token
        ended = msgspec.structs.replace(token, revoked_at=now(), revoked_by=actor, digest=b"")
        # At once, and durable on return: a store that cannot write must not keep anybody in.
        self._put(ended)
        try:
            # Whoever asked may leave: it must not be good again after the next start.
            with trio.fail_after(REVOKE_SECONDS, shield=True):
                await self._documents.revise(KIND, token.id, lambda _: _encode(ended))
        except (BlacktreeError, trio.TooSlowError):
            log.error("a token was revoked, and that is not on record yet: revoke it again", token=token.id)
            self._known[token.id] = msgspec.structs.replace(token, digest=b"", expires_at=now())
            raise
        return ended

    def all(self) -> list[Token]:
        """See `TokenControl.all`."""
        return sorted(self._known.values(), key=lambda token: (token.created_at, token.id))

    def get(self, name: str) -> Token:
        """See `TokenControl.get`."""
        if (token := self._known.get(name) or self._named(name)) is not None:
            return token
        time = now()
        guess = nearest(name, [token.name for token in self._known.values() if token.valid(time)])
        advice = f"did you mean `{guess}`?" if guess else "`blacktree token list` shows them"
        raise NotFound(f"there is no token {name[:100]!r}", advice=advice)

    def _named(self, name: str) -> Token | None:
        time = now()
        return next((each for each in self._known.values() if each.name == name and each.valid(time)), None)

    def shown(self, text: str) -> Token | None:
        """See `TokenControl.shown`."""
        token = self.valid(id_in(text))
        return token if token is not None and token.is_shown_by(text) else None

    def valid(self, identity: str) -> Token | None:
        """See `TokenControl.valid`."""
        token = self._known.get(identity)
        return token if token is not None and token.valid(now()) else None

    async def wait_changed(self, since: int) -> int:
        """See `TokenControl.wait_changed`."""
        while self._version <= since:
            await self._changed.wait()
        return self._version

    def _put(self, token: Token) -> None:
        self._known[token.id] = token
        self._version += 1
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def _forget(self, before: datetime) -> None:
        for token in self.all():
            end = min((each for each in (token.revoked_at, token.expires_at) if each is not None), default=None)
            if end is not None and end < before:
                await self._documents.revise(KIND, token.id, lambda _: None)
                del self._known[token.id]
