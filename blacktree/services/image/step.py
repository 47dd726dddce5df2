"""The step `build`: from a context to an image without a name."""

from blacktree.clock import now, rfc3339
from blacktree.providers.base import BuildRequest
from blacktree.services.core.context import Build
from blacktree.services.image.empty import EmptyContext


class BuildStep:
    """Leaves `build.built`. Its output and its steps are the provider's."""

    name = "build"

    async def run(self, build: Build) -> None:
        spec = build.spec
        build.built = await build.provider.build(
            BuildRequest(
                job_id=build.job_id,
                attempt=build.attempt,
                context=build.context or EmptyContext(),
                dockerfile=spec.dockerfile,
                target=spec.target,
                platform=spec.platform,
                build_args=spec.build_args,
                labels=labels_for(build),
                no_cache=spec.no_cache,
                pull=spec.pull,
                cache_from=spec.cache_from,
                builder=spec.builder,
                secrets=build.secrets,
                login=build.login,
            ),
            build.sink,
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
