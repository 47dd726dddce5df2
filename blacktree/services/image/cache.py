"""The layer cache that workers share through the registry: what was pushed last serves the next build."""

from blacktree.errors import StepFailed
from blacktree.providers.registry.client import open_registry
from blacktree.providers.registry.reference import parse_reference
from blacktree.services.core.context import Build

LOOK_SECONDS = 5.0


def shares_cache(build: Build) -> bool:
    """Whether this build's layers shall serve later ones, through the image that it pushes."""
    return build.spec.push and build.trusted and build.config.registry_cache


async def cache_sources(build: Build) -> list[str]:
    """Images to take layers from: what the job names, and what this image was last published as, if it is there."""
    if not build.trusted:
        return []
    found = list(build.spec.cache_from)
    if shares_cache(build) and not build.spec.no_cache:
        found += [name for name in build.cache_from if name not in found and await _is_there(build, name)]
    return found


async def _is_there(build: Build, name: str) -> bool:
    """A look beforehand: the engine would tell a missing one as a failed step. Not to be seen is not to be used."""
    reference = parse_reference(name)
    config = build.config
    seconds = min(LOOK_SECONDS, config.registry_timeout_seconds)
    try:
        async with open_registry(
            reference, build.login, insecure=config.insecure_registries, seconds=seconds
        ) as registry:
            return await registry.head(reference.tag) is not None
    except StepFailed as error:
        await build.sink.notice("cache_not_used", f"layers of {name} are not used: {error.message}", step="build")
        return False
