"""Manifests as they are sent, and the list that holds several platforms together. Pure (OCI image specification)."""

import hashlib
from collections.abc import Sequence

import msgspec

from blacktree.errors import StepFailed
from blacktree.providers.registry.faults import fault

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_TYPES = (DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes as the registry has them: the digest is over exactly these."""

    media_type: str
    body: bytes
    digest: str


class Descriptor(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a manifest."""

    digest: str
    size: int = 0


class _Manifest(msgspec.Struct):
    config: Descriptor


class _Config(msgspec.Struct):
    os: str = ""
    architecture: str = ""
    variant: str = ""


class Platform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an image runs, as an index says it."""

    architecture: str
    os: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class _Entry(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    media_type: str
    size: int
    digest: str
    platform: Platform


class _Index(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    schema_version: int
    media_type: str
    manifests: list[_Entry]


def config_digest(manifest: Manifest) -> str:
    """The digest of an image's configuration. Raises `StepFailed` (code `registry_garbage`)."""
    try:
        return msgspec.json.decode(manifest.body, type=_Manifest).config.digest
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise fault("registry_garbage", f"{manifest.digest} is no image's manifest") from None


def platform_of(config: bytes) -> Platform:
    """The platform that an image's configuration names. Raises `StepFailed` (code `registry_garbage`)."""
    try:
        found = msgspec.json.decode(config, type=_Config)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise fault("registry_garbage", "an image's configuration cannot be read") from None
    return Platform(architecture=found.architecture, os=found.os, variant=found.variant)


def checked_platform(found: Platform, wanted: str) -> Platform:
    """The image's platform, if it is the wanted one. Raises `StepFailed` (code `platform_mismatch`)."""
    os, _, rest = wanted.partition("/")
    architecture, _, variant = rest.partition("/")
    if not rest:
        os, architecture = "linux", os
    architecture, implied = _ALIASES.get(architecture, (architecture, ""))
    variant = variant or implied
    same = (found.os, found.architecture) == (os, architecture)
    if not same or (variant and found.variant and _plain(found) != _plain(_of(os, architecture, variant))):
        raise StepFailed(
            f"built for {wanted}, the image says it is for {found}",
            code="platform_mismatch",
            again=False,
            step="push",
            advice="the base image in FROM has no such platform: use one that has",
        )
    return found if found.variant or not variant else _of(os, architecture, variant)


# As the engine normalizes them: name to architecture and variant.
_ALIASES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "i386": ("386", ""),
}
_DEFAULT_VARIANTS = {("arm64", "v8"), ("amd64", "v1")}


def _of(os: str, architecture: str, variant: str) -> Platform:
    return Platform(os=os, architecture=architecture, variant=variant)


def _plain(platform: Platform) -> Platform:
    if (platform.architecture, platform.variant) in _DEFAULT_VARIANTS:
        return _of(platform.os, platform.architecture, "")
    return platform


def index_of(parts: Sequence[tuple[Manifest, Platform]]) -> Manifest:
    """One manifest for all of these: a Docker list of Docker manifests, else an OCI index. Equal parts, equal bytes."""
    docker = all(manifest.media_type == DOCKER_MANIFEST for manifest, _ in parts)
    media_type = DOCKER_LIST if docker else OCI_INDEX
    entries = [
        _Entry(media_type=each.media_type, size=len(each.body), digest=each.digest, platform=platform)
        for each, platform in parts
    ]
    body = msgspec.json.encode(_Index(schema_version=2, media_type=media_type, manifests=entries))
    return Manifest(media_type=media_type, body=body, digest=f"sha256:{hashlib.sha256(body).hexdigest()}")
