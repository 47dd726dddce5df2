"""The step `push`: the image to its registry. First under a tag of this attempt's own, which may take as long as it
takes; then one small request a wanted tag, under the publish grant."""

from contextlib import nullcontext

import structlog
import trio

from blacktree.concurrency.threads import in_loose_thread
from blacktree.errors import BlacktreeError, StepFailed
from blacktree.job import Image
from blacktree.providers.docker.scope import open_tasks
from blacktree.providers.registry.client import Registry, open_registry
from blacktree.providers.registry.manifest import (
    Manifest,
    Platform,
    checked_platform,
    config_digest,
    index_of,
    platform_of,
)
from blacktree.providers.registry.reference import Reference, parse_reference, push_tag
from blacktree.services.core.context import Build
from blacktree.services.core.telling import telling
from blacktree.services.image.names import image_of, references_for
from blacktree.services.image.patience import persist
from blacktree.services.image.prepare import prepare, remove_tags

log = structlog.get_logger()

MEET_AFTER_SECONDS = 0.05
TIDY_SECONDS = 5.0
LAST_TIDY_SECONDS = 1.0
MAX_EARLIER = 20


class PushStep:
    """Needs `build.built` (and `build.variants`), or `build.parts`; leaves `build.image` with the digest. Idle unless
    asked to."""

    name = "push"

    async def run(self, build: Build) -> None:
        if not build.spec.push:
            return
        if not build.trusted:
            await build.sink.notice("push_refused", "not pushed: where this job comes from is not trusted", step="push")
            return
        if build.built is None and not build.parts:
            raise StepFailed(
                "there is no image to push",
                code="no_image",
                advice="name the step `build` before `push` in worker.steps",
                step=self.name,
            )
        references = references_for(build)
        reference = parse_reference(references[0])
        config = build.config
        opened = open_registry(
            reference, build.login, insecure=config.insecure_registries, seconds=config.registry_timeout_seconds
        )
        async with telling(build.sink, self.name, f"push {references[0]}"), opened as registry:
            await persist(build.sink, self.name, lambda _: prepare(build, reference))
            async with open_tasks() as beside:
                beside.start_soon(_meet, registry)
                await _Push(build, reference, references, registry).run(build.built.id if build.built else "")
                beside.cancel_scope.cancel()


async def _meet(registry: Registry) -> None:
    """What is asked of the registry after the layers need not wait for its first words then. Not at once: the engine
    is to have its push before this worker's thread is busy with another client."""
    await trio.sleep(MEET_AFTER_SECONDS)
    await registry.ready()


class _Push:
    """One attempt's push."""

    def __init__(self, build: Build, reference: Reference, references: list[str], registry: Registry) -> None:
        self._build = build
        self._reference = reference
        self._references = references
        self._registry = registry
        self._named: list[str] = []
        self._uploaded: list[str] = []

    async def run(self, image_id: str) -> None:
        try:
            manifest = await self._manifest(image_id)
            moved, withheld = await self._publish(manifest)
        except BlacktreeError:
            await self._tidy(TIDY_SECONDS)
            raise
        except BaseException:
            # A cancellation, which may come in a group: what connects to the registry has tasks of its own.
            await self._tidy(LAST_TIDY_SECONDS)
            raise
        # Only now: a later attempt would need them still.
        self._uploaded += [part.tag for part in self._build.parts]
        await self._tidy(TIDY_SECONDS)
        first = moved[0] if moved else f"{image_of(self._build)}@{manifest.digest}"
        self._build.image = Image(
            reference=first, id=image_id or manifest.digest, digest=manifest.digest, references=moved, withheld=withheld
        )

    async def _manifest(self, image_id: str) -> Manifest:
        """What the wanted tags shall name; all of its parts are in the registry."""
        variants = self._build.variants
        if not variants and not self._build.parts:
            return await self._upload(image_id, "")
        parts: list[tuple[Manifest, Platform]] = []
        for part in self._build.parts:
            manifest = await self._read(part.digest)
            parts.append((manifest, await self._platform(manifest, part.platform)))
        for variant in variants:
            manifest = await self._upload(variant.image.id, variant.platform)
            parts.append((manifest, await self._platform(manifest, variant.platform)))
        return index_of(parts)

    async def _read(self, digest: str) -> Manifest:
        return await persist(self._build.sink, "push", lambda _: self._registry.manifest(digest))

    async def _upload(self, image_id: str, platform: str) -> Manifest:
        """Push one image under a tag of this attempt's own, and read what the registry has made of it."""
        build = self._build
        tag = push_tag(build.job_id, build.attempt, platform)
        name = f"{image_of(build)}:{tag}"
        label = f"push-{platform.replace('/', '-')}" if platform else "push"

        async def push(tries: int) -> str:
            # Anew each time: what a helper gives may have expired meanwhile.
            login = await in_loose_thread(lambda: build.login(self._reference.host))
            step = label if tries == 1 else f"{label}.{tries}"
            stall = build.config.push_stall_seconds
            # The first push of the only image is the step itself.
            told = telling(build.sink, step, f"push {platform or name}") if step != "push" else nullcontext()
            async with told:
                return await build.provider.push(
                    name, login, build.sink, step=step, stall_seconds=stall, nearly=self._expect
                )

        self._named.append(name)
        await build.provider.tag(image_id, [name])
        digest = await persist(build.sink, "push", push)
        self._uploaded.append(tag)
        return await self._read(digest)

    def _expect(self) -> None:
        """The grant takes a moment: it is asked for while the engine ends its push. With several platforms the end is
        not near yet."""
        if not self._build.variants:
            self._build.expect_publishing(self._references)

    async def _platform(self, manifest: Manifest, wanted: str) -> Platform:
        """The platform as the image itself says it, which must be the one that was asked for."""
        config = config_digest(manifest)
        body = await persist(self._build.sink, "push", lambda _: self._registry.blob(config))
        return checked_platform(platform_of(body), wanted)

    async def _publish(self, manifest: Manifest) -> tuple[list[str], list[str]]:
        """Move the names that are ours to move; answers them, and those that a newer job has taken."""
        left, moved, withheld = list(self._references), list[str](), list[str]()

        async def move(tries: int) -> None:
            async with self._build.publishing(left) as grant:
                for reference in list(left):
                    if reference in grant.withheld:
                        withheld.append(reference)
                    else:
                        grant.check()
                        await self._put(parse_reference(reference).tag, manifest)
                        moved.append(reference)
                    left.remove(reference)

        await persist(self._build.sink, "push", move)
        for reference in withheld:
            text = f"{reference} is not moved: a newer job has published it already"
            await self._build.sink.notice("tag_withheld", text, step="push")
        return moved, withheld

    async def _put(self, tag: str, manifest: Manifest) -> None:
        try:
            await self._registry.put(tag, manifest)
        except StepFailed as error:
            # Where no tag may be moved, one that an earlier try has set already is as it should be.
            if error.code != "tag_immutable" or await self._registry.head(tag) != manifest.digest:
                raise

    async def _tidy(self, seconds: float) -> None:
        """Take away the names of this attempt: the engine's, and beside that the registry's tags."""
        with trio.move_on_after(TIDY_SECONDS, shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tidy_engine)
                with trio.move_on_after(seconds):
                    await self._tidy_registry()

    async def _tidy_engine(self) -> None:
        try:
            await self._build.provider.untag(self._named)
        except BlacktreeError as error:
            log.info("names of a push stay on the engine", names=self._named, reason=str(error))

    async def _tidy_registry(self) -> None:
        """And the tags of earlier attempts that were killed. Where a registry takes no tags away, they stay."""
        if not self._uploaded:
            return
        build = self._build
        platforms = [variant.platform for variant in build.variants] or [""]
        first = max(1, build.attempt - MAX_EARLIER)
        earlier = [push_tag(build.job_id, number, each) for number in range(first, build.attempt) for each in platforms]
        try:
            if await remove_tags(build, self._reference, [*self._uploaded, *earlier]):
                return
            for tag in [*self._uploaded, *earlier]:
                if not await self._registry.delete_tag(tag):
                    return
        except BlacktreeError:
            return
