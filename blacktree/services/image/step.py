"""The step `build`: from a context to an image without a name."""

from blacktree.clock import now, rfc3339
from blacktree.errors import StepFailed
from blacktree.providers.base import BuildRequest
from blacktree.services.core.context import Build, Variant
from blacktree.services.image.cache import cache_sources, shares_cache
from blacktree.services.image.empty import EmptyContext
from blacktree.services.image.platforms import PlatformSink


class BuildStep:
    """Leaves `build.built`, and `build.variants` where several platforms are asked for. Its output and its steps are
    the provider's."""

    name = "build"

    async def run(self, build: Build) -> None:
        sources = await cache_sources(build)
        if not build.spec.platforms:
            build.built = await build.provider.build(_request(build, build.spec.platform, sources), build.sink)
            return
        # One after the other: a slot is one build's share of the machine.
        for platform in build.spec.platforms:
            sink = PlatformSink(build.sink, platform)
            try:
                image = await build.provider.build(_request(build, platform, sources), sink)
            except StepFailed as error:
                raise _named(error, platform) from error
            build.variants.append(Variant(platform=platform, image=image))
        build.built = build.variants[0].image


def _request(build: Build, platform: str | None, sources: list[str]) -> BuildRequest:
    spec = build.spec
    return BuildRequest(
        job_id=build.job_id,
        attempt=build.attempt,
        context=build.context or EmptyContext(),
        dockerfile=spec.dockerfile,
        target=spec.target,
        platform=platform,
        build_args=spec.build_args,
        labels=labels_for(build),
        no_cache=spec.no_cache,
        pull=spec.pull,
        cache_from=sources,
        builder=spec.builder,
        secrets=build.secrets,
        inline_cache=shares_cache(build),
        login=build.login,
    )


def _named(error: StepFailed, platform: str) -> StepFailed:
    """The same failure, which says of which platform."""
    return StepFailed(
        f"{platform}: {error.message}",
        code=error.code,
        again=error.again,
        advice=error.advice,
        step=error.step,
        exit_code=error.exit_code,
    )


def labels_for(build: Build) -> dict[str, str]:
    """The job's labels over the standard ones (OCI image specification, annotations).

    `created` differs with every build. Both builders set labels after the last instruction, so layers stay cached.
    """
    labels = {
        "org.opencontainers.image.source": without_login(build.spec.repository),
        "org.opencontainers.image.created": rfc3339(now()),
    }
    if build.commit:
        labels["org.opencontainers.image.revision"] = build.commit
    return labels | build.spec.labels


def without_login(repository: str) -> str:
    """The address without user and password; images are public places."""
    scheme, mark, rest = repository.partition("://")
    if not mark:
        return repository
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
