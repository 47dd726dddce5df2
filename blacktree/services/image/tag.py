"""The step `tag`: names for the image that was built, under the publish grant."""

import trio

from blacktree.errors import StepFailed
from blacktree.job import Image
from blacktree.services.core.context import Build
from blacktree.spec import image_name_for

COMMIT_CHARACTERS = 12


class TagStep:
    """Needs `build.built`, leaves `build.image`."""

    name = "tag"

    async def run(self, build: Build) -> None:
        if build.built is None:
            raise StepFailed(
                "there is no image to tag",
                code="no_image",
                advice="name the step `build` before `tag` in worker.steps",
                step=self.name,
            )
        references = references_for(build)
        title = f"tag {references[0]}"
        async with build.publishing():
            await build.sink.step_started(self.name, title)
            began = trio.current_time()
            ok = False
            try:
                await build.provider.tag(build.built.id, references)
                build.image = Image(reference=references[0], id=build.built.id, references=references)
                ok = True
            finally:
                # The end of the step is told even if the engine refuses; the sink is quick or gone.
                with trio.move_on_after(2, shield=True):
                    seconds = trio.current_time() - began
                    await build.sink.step_finished(self.name, title, cached=False, seconds=seconds, ok=ok)


def references_for(build: Build) -> list[str]:
    """`image:tag` for each tag; without tags the short commit, and without a commit the job's id."""
    image = build.spec.image or image_name_for(build.spec.repository)
    tags = list(build.spec.tags) or [build.commit[:COMMIT_CHARACTERS] if build.commit else build.job_id]
    return [f"{image}:{tag}" for tag in tags]
