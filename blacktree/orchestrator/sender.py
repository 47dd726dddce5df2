"""`Sender`: one message to one target, signed; what came back in a status and a few words."""

from blacktree.clock import now
from blacktree.errors import BlacktreeError
from blacktree.notification import Target, signed
from blacktree.orchestrator.poster import Poster
from blacktree.orchestrator.statuswords import Later, Refused
from blacktree.orchestrator.vaulted import Vaulted
from blacktree.secret import SecretKind

USER_AGENT = "blacktree-notify/1"
MOST_SAID = 300


class Sender:
    """Keeps the connections; the secret is read anew for each message."""

    def __init__(self, vault: Vaulted) -> None:
        self._vault = vault
        self._poster = Poster()

    async def send(self, target: Target, id: str, body: bytes) -> tuple[int, str]:
        """The status that came back, and the beginning of what was said with it. Raises `Later` or `Refused`."""
        try:
            secret = await self._vault.value(target.secret, kind=SecretKind.WEBHOOK)
        except BlacktreeError as error:
            raise Later(str(error)) from None
        if secret is None:
            raise Later(f"the vault has no webhook secret `{target.secret}` without a scope")
        headers = {"content-type": "application/json", "user-agent": USER_AGENT, **signed(secret, id, now(), body)}
        try:
            reply = await self._poster.post(target.url, headers, body)
        except Refused:
            # It names the address, which may bear a token.
            raise Refused("its address cannot be used") from None
        return reply.status, _said(reply.text)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._poster.aclose()


def refuses_this_one(status: int) -> bool:
    """Whether an answer is about the message rather than the target: then the others need not wait."""
    return 400 <= status < 500 and status not in (401, 403, 404, 408, 425, 429)


def is_final(status: int) -> bool:
    """Whether it will never be taken (410, Gone)."""
    return status == 410


def trouble(status: int, said: str) -> str:
    """What is wrong with an answer; empty if it was taken. A redirect is not followed, and is no success."""
    if 200 <= status < 300:
        return ""
    return f"HTTP {status}: {said}" if said else f"HTTP {status}"


def _said(text: str) -> str:
    """For a person's screen: one line, nothing that a terminal would obey."""
    return "".join(char if char.isprintable() else " " for char in " ".join(text.split()))[:MOST_SAID]
