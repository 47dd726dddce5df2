"""The step `policy`: refuses a Dockerfile whose base images may change under it, and leaves a report."""

import re

import trio

from blacktree.errors import StepFailed
from blacktree.services.core.context import Build

_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(?P<image>\S+)(?:\s+AS\s+(?P<stage>\S+))?", re.IGNORECASE | re.MULTILINE)


class PolicyStep:
    """Goes between `sync` and `build`. Each base must have a tag that is not `latest`, or a digest."""

    name = "policy"

    async def run(self, build: Build) -> None:
        """Raises `StepFailed`: `no_source` before `sync`, `base_not_pinned` for what it refuses."""
        if build.context is None:
            raise StepFailed(
                "there is no source to look at",
                code="no_source",
                advice="name the step `sync` before `policy` in worker.steps",
                step=self.name,
            )
        title = "check that base images are pinned"
        await build.sink.step_started(self.name, title)
        began = trio.current_time()
        ok = False
        try:
            bases = bases_of((await _content(build)).decode("utf-8", "replace"))
            await build.sink.output(self.name, "stdout", "".join(f"base {base}\n" for base in bases).encode())
            if loose := [base for base in bases if not is_pinned(base)]:
                raise StepFailed(
                    f"the base image {loose[0]} is not pinned",
                    code="base_not_pinned",
                    advice="write a version or a digest after its name",
                    step=self.name,
                )
            ok = True
        finally:
            # Told even when the build is cancelled; the sink is quick or gone.
            with trio.move_on_after(2, shield=True):
                seconds = trio.current_time() - began
                await build.sink.step_finished(self.name, title, cached=False, seconds=seconds, ok=ok)


async def _content(build: Build) -> bytes:
    assert build.context is not None
    wanted = [entry for entry in await build.context.entries() if entry.path == build.spec.dockerfile]
    content = b""
    async with build.context.read(wanted) as chunks:
        async for _, chunk in chunks:
            content += chunk
    return content


def bases_of(dockerfile: str) -> list[str]:
    """The images that a Dockerfile builds on; its own stages and `scratch` are none."""
    found: list[str] = []
    stages = {"scratch"}
    for match in _FROM.finditer(dockerfile):
        if match["image"].lower() not in stages:
            found.append(match["image"])
        if match["stage"]:
            stages.add(match["stage"].lower())
    return found


def is_pinned(image: str) -> bool:
    """Whether the name says which image it means, today and tomorrow."""
    _, colon, tag = image.rpartition("/")[2].partition(":")
    return "@" in image or (bool(colon) and tag != "latest")
