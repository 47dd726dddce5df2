"""The step `tag`: names for the image that was built, on this worker's engine, under the publish grant."""

from blacktree.errors import StepFailed
from blacktree.job import Image
from blacktree.services.core.context import Build
from blacktree.services.core.telling import telling
from blacktree.services.image.names import references_for


class TagStep:
    """Needs `build.built`, leaves `build.image`."""

    name = "tag"

    async def run(self, build: Build) -> None:
        if build.part:
            return
        if build.built is None:
            raise StepFailed(
                "there is no image to tag",
                code="no_image",
                advice="name the step `build` before `tag` in worker.steps",
                step=self.name,
            )
        references = references_for(build)
        async with build.publishing(), telling(build.sink, self.name, f"tag {references[0]}"):
            await build.provider.tag(build.built.id, references)
            build.image = Image(reference=references[0], id=build.built.id, references=references)
