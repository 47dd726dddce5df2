"""Declared sources: those of the configuration file, and those on record; all of them in memory."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from blacktree.address import parse_address
from blacktree.errors import BadRequest, Conflict, NotFound
from blacktree.orchestrator.chronicle import Chronicle
from blacktree.orchestrator.hookcontrol import SourceView
from blacktree.source import Source, checked, source_from
from blacktree.storage.base import DocumentTable
from blacktree.strict import UNREADABLE, nearest

KIND = "source"
MAXIMUM_SOURCES = 10_000
_PORTS = {"https": 443, "http": 80, "ssh": 22, "git": 9418}
_HERE = ("localhost", "127.0.0.1", "[::1]", "0.0.0.0")


class Sources:
    """See `SourceControl`. `places`: our own `host:port`s, which no source may name."""

    def __init__(
        self, documents: DocumentTable, chronicle: Chronicle, configured: Mapping[str, Source], places: set[str]
    ) -> None:
        self._documents = documents
        self._chronicle = chronicle
        self._configured = dict(configured)
        self._stored: dict[str, Source] = {}
        self._damaged: set[str] = set()
        self._places = set(places)

    async def load(self) -> None:
        """From the record; to be called once, before anything is asked. Raises `BadRequest` for a configured source
        that points at ourselves."""
        for name, configured in self._configured.items():
            self._check_place(configured, f"sources.{name}")
        after = ""
        while page := await self._documents.documents(KIND, after=after):
            after = page[-1][0]
            for name, body in page:
                if (source := _read(body)) is not None:
                    self._stored[name] = source
                else:
                    # One source less, and the farm starts; what is there can be removed or declared anew.
                    self._damaged.add(name)
                    self._chronicle.note("source_damaged", f"source {name} cannot be read", subject=name)

    def door_at(self, port: int) -> None:
        """See `SourceControl.door_at`."""
        self._places |= {f"{host}:{port}" for host in _HERE}

    def run_secrets(self) -> set[str]:
        """The names of the run secrets that what sources deploy is given."""
        runs = [each.source.run for each in self.all()]
        return {name for run in runs if run is not None for name in run.secrets}

    def all(self) -> list[SourceView]:
        """See `SourceControl.all`."""
        names = sorted({*self._configured, *self._stored})
        return [self.get(name) for name in names]

    def get(self, name: str) -> SourceView:
        """See `SourceControl.get`."""
        if (source := self._configured.get(name)) is not None:
            return SourceView(source=source, configured=True)
        if (source := self._stored.get(name)) is not None:
            return SourceView(source=source)
        if name in self._damaged:
            raise _unreadable(name)
        guess = nearest(name, [*self._configured, *self._stored])
        advice = f"did you mean `{guess}`?" if guess else "`blacktree source list` shows them"
        raise NotFound(f"there is no source {name[:100]!r}", advice=advice)

    def find(self, name: str) -> Source | None:
        """The source, if it is (still) there."""
        return self._configured.get(name) or self._stored.get(name)

    def of(self, forge: str, name: str | None = None) -> list[Source]:
        """Those of one forge that can take webhooks, or the one of this name."""
        every = [view.source for view in self.all()] if name is None else [self.find(name)]
        return [each for each in every if each is not None and each.forge == forge and each.webhook_secret]

    async def add(self, source: Source, *, actor: str = "") -> SourceView:
        """See `SourceControl.add`."""
        self._check_place(checked(source))
        self._check_free(source.name)
        if len(self._stored) >= MAXIMUM_SOURCES:
            raise Conflict(f"there are {MAXIMUM_SOURCES} sources already", advice="remove one that is not needed")
        body = msgspec.json.encode(source)

        first: list[Source] = []

        def decide(before: bytes | None) -> bytes:
            # Only what cannot be read may be declared anew.
            if before is not None and (standing := _read(before)) is not None:
                first[:] = [standing]
                raise _taken(source.name)
            return body

        try:
            await self._documents.revise(KIND, source.name, decide)
        except Conflict:
            # Another was first; if it was cancelled meanwhile, only the record knows of it.
            self._stored.setdefault(source.name, first[0])
            raise
        self._stored[source.name] = source
        self._damaged.discard(source.name)
        self._chronicle.note(
            "source_added", f"source {source.name} was added by {actor or 'somebody'}", subject=source.name
        )
        return SourceView(source=source)

    async def edit(self, name: str, changes: dict[str, Any], *, actor: str = "") -> SourceView:
        """See `SourceControl.edit`."""
        self._check_own(name)
        if changes.get("name", name) != name:
            raise Conflict("source.name: a source keeps its name", data={"path": "source.name"})
        edited: list[Source] = []

        def decide(before: bytes | None) -> bytes:
            if before is None:
                raise NotFound(f"there is no source {name[:100]!r}")
            if _read(before) is None:
                raise _unreadable(name)
            source = source_from({**msgspec.json.decode(before), **changes})
            self._check_place(source)
            edited[:] = [source]
            return msgspec.json.encode(source)

        await self._documents.revise(KIND, name, decide)
        self._stored[name] = edited[0]
        self._chronicle.note("source_edited", f"source {name} was changed by {actor or 'somebody'}", subject=name)
        return SourceView(source=edited[0])

    async def remove(self, name: str, *, actor: str = "") -> SourceView:
        """See `SourceControl.remove`."""
        damaged = name in self._damaged and name not in self._configured
        # Of such a one no more is known than its name.
        view = SourceView(source=Source(name=name, repository="")) if damaged else self._check_own(name)
        await self._documents.revise(KIND, name, lambda before: None)
        self._stored.pop(name, None)
        self._damaged.discard(name)
        self._chronicle.note("source_removed", f"source {name} was removed by {actor or 'somebody'}", subject=name)
        return view

    def _check_own(self, name: str) -> SourceView:
        view = self.get(name)
        if view.configured:
            raise Conflict(
                f"source {name} is in the configuration file",
                code="source_configured",
                advice="change it there, and restart the orchestrator",
            )
        return view

    def _check_free(self, name: str) -> None:
        if name in self._configured or name in self._stored:
            raise _taken(name)

    def _check_place(self, source: Source, where: str = "source") -> None:
        address = parse_address(source.repository, allow_local=False, where=f"{where}.repository")
        found = {"repository": f"{address.host}:{address.port or _PORTS.get(address.scheme, 0)}"}
        if source.forge_url:
            found["forge_url"] = place_of(source.forge_url)
        for field, place in found.items():
            if place in self._places:
                raise BadRequest(
                    f"{where}.{field}: {place} is this farm itself",
                    path=f"{where}.{field}",
                    code="source_is_ourselves",
                    advice="name the repository at its forge",
                )


def own_places(public_url: str, listen: str) -> set[str]:
    """`host:port` of our own door, as far as the settings tell."""
    host, _, port = listen.rpartition(":")
    places = {f"{each}:{port}" for each in (*_HERE, *([host.lower()] if host else []))} if port != "0" else set()
    return places | ({place_of(public_url)} if public_url else set())


def place_of(url: str) -> str:
    """`host:port` of an http or https address, the port always there."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        port = parts.port
    except ValueError:
        port = None
    return f"{f'[{host}]' if ':' in host else host}:{port or _PORTS.get(parts.scheme, 0)}"


def _read(body: bytes) -> Source | None:
    """None: it is damaged."""
    try:
        return msgspec.json.decode(body, type=Source)
    except UNREADABLE:
        return None


def _unreadable(name: str) -> Conflict:
    return Conflict(
        f"the record of source {name} is damaged",
        code="source_damaged",
        advice=f"remove it with `blacktree source remove {name}`, or add it anew",
    )


def _taken(name: str) -> Conflict:
    return Conflict(
        f"there is a source {name} already",
        advice=f"change it with `blacktree source edit {name}`, or choose another name",
    )
