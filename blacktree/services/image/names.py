"""What a job's image is called. Pure."""

from blacktree.services.core.context import Build
from blacktree.spec import image_name_for

COMMIT_CHARACTERS = 12


def image_of(build: Build) -> str:
    """The image's name without a tag."""
    return build.spec.image or image_name_for(build.spec.repository)


def references_for(build: Build) -> list[str]:
    """`image:tag` for each tag; without tags the short commit, and without a commit the job's id."""
    image = image_of(build)
    tags = list(build.spec.tags) or [build.commit[:COMMIT_CHARACTERS] if build.commit else build.job_id]
    return [f"{image}:{tag}" for tag in tags]
