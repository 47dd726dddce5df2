"""What can be replaced of what is declared: sources and targets. A field that is not given stays as it is."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from blacktree.notification import EventPattern
from blacktree.runspec import RunSpec
from blacktree.source import Allowance, Forge, Pattern, SourceName, VaultName
from blacktree.spec import Name


class SourceChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The fields of a source to replace; `name`, if it is given, must be its own."""

    name: SourceName | msgspec.UnsetType = msgspec.UNSET
    repository: Annotated[str, Meta(min_length=1, max_length=4096)] | msgspec.UnsetType = msgspec.UNSET
    forge: Forge | msgspec.UnsetType = msgspec.UNSET
    branches: Annotated[list[Pattern], Meta(max_length=100)] | msgspec.UnsetType = msgspec.UNSET
    tags: Annotated[list[Pattern], Meta(max_length=100)] | msgspec.UnsetType = msgspec.UNSET
    pull_requests: bool | msgspec.UnsetType = msgspec.UNSET
    spec: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    push: bool | msgspec.UnsetType = msgspec.UNSET
    run: RunSpec | msgspec.UnsetType | None = msgspec.UNSET
    secrets: Annotated[list[Name], Meta(max_length=64)] | msgspec.UnsetType = msgspec.UNSET
    supersede: bool | msgspec.UnsetType = msgspec.UNSET
    allow_forks: Annotated[list[Allowance], Meta(max_length=4)] | msgspec.UnsetType = msgspec.UNSET
    webhook_secret: VaultName | msgspec.UnsetType | None = msgspec.UNSET
    forge_token: VaultName | msgspec.UnsetType | None = msgspec.UNSET
    forge_url: Annotated[str, Meta(max_length=1024)] | msgspec.UnsetType | None = msgspec.UNSET


class TargetChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The fields of a target to replace; `name`, if it is given, must be its own."""

    name: SourceName | msgspec.UnsetType = msgspec.UNSET
    url: Annotated[str, Meta(min_length=1, max_length=2048)] | msgspec.UnsetType = msgspec.UNSET
    secret: VaultName | msgspec.UnsetType = msgspec.UNSET
    events: Annotated[list[EventPattern], Meta(max_length=64)] | msgspec.UnsetType = msgspec.UNSET
    repositories: Annotated[list[str], Meta(max_length=64)] | msgspec.UnsetType = msgspec.UNSET
    paused: bool | msgspec.UnsetType = msgspec.UNSET


def given(changes: SourceChanges | TargetChanges) -> dict[str, Any]:
    """The fields that are given, as plain values."""
    value: dict[str, Any] = msgspec.to_builtins(changes)
    return value
