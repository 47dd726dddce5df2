"""`Teller`: one status of a job, made into its forge's request and sent."""

import msgspec

from blacktree.errors import BlacktreeError
from blacktree.job import Job, Origin
from blacktree.orchestrator.forges import FORGES
from blacktree.orchestrator.forges.base import Report, StatusCall
from blacktree.orchestrator.poster import Poster
from blacktree.orchestrator.sources import Sources
from blacktree.orchestrator.statuswords import Later, Refused, context_of, describe, judge
from blacktree.orchestrator.vaulted import Vaulted
from blacktree.secret import SecretKind


class Teller:
    """Keeps the connections; the token is read anew for each request."""

    def __init__(self, sources: Sources, vault: Vaulted, public_url: str) -> None:
        self._sources = sources
        self._vault = vault
        self._public_url = public_url.rstrip("/")
        self._poster = Poster()

    async def post(self, call: StatusCall) -> None:
        """Returns once the forge has taken it. Raises `Later` or `Refused`."""
        headers = {**call.headers, "content-type": "application/json"}
        reply = await self._poster.post(call.url, headers, msgspec.json.encode(call.body))
        judge(reply.status, reply.headers, reply.text)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._poster.aclose()

    async def call(self, job: Job, origin: Origin, state: str) -> StatusCall:
        """The request that says so. Raises `Later` or `Refused`."""
        source = self._sources.find(origin.source)
        if source is None or not source.forge_token:
            raise Refused("its source is gone, or names no forge token any more")
        try:
            token = await self._vault.value(
                source.forge_token, kind=SecretKind.FORGE, source=source.name, repository=source.repository
            )
        except BlacktreeError as error:
            raise Later(str(error)) from None
        if token is None:
            raise Refused(f"the vault has no forge secret `{source.forge_token}` for this source")
        report = Report(
            state=state,
            description=describe(job, state),
            context=context_of(origin),
            target_url=f"{self._public_url}/#/job/{job.id}" if self._public_url else "",
        )
        text = token.decode("ascii", "replace").strip()
        if not text.isascii() or not text.isprintable():
            # Whoever refuses such a header quotes it, and that would be told to everybody.
            raise Refused(f"the forge secret `{source.forge_token}` holds more than one line of plain text")
        try:
            return FORGES[source.forge].status(source, origin, report, text)
        except BlacktreeError as error:
            raise Refused(f"no request can be made of it: {error}") from None
