"""Where a registry is made ready before the first byte is pushed."""

from collections.abc import Sequence

import trio

from blacktree.concurrency.threads import in_loose_thread
from blacktree.errors import StepFailed
from blacktree.providers.registry.reference import Reference
from blacktree.services.core.context import Build


async def prepare(build: Build, reference: Reference) -> None:
    """Called once an attempt, before anything is pushed to `reference.host`; most registries need nothing.

    Raises `StepFailed`; again=True is tried again as a push is. Repeatable, and safe beside another attempt's.
    """
    await trio.lowlevel.checkpoint()
    if build.ecr is None or build.ecr.place(reference.host) is None:
        return
    try:
        await build.ecr.prepare(reference.host, reference.repository)
    except StepFailed as error:
        # The job or the worker may have a login for it without being AWS's customer; then nothing is made here.
        no_customer = error.code in ("aws_credentials_missing", "aws_credentials_invalid", "aws_credentials_expired")
        if not no_customer or await in_loose_thread(lambda: build.login(reference.host)) is None:
            raise
        await build.sink.notice("repository_unchecked", f"pushed with a login alone: {error}", step="push")


async def remove_tags(build: Build, reference: Reference, tags: Sequence[str]) -> bool:
    """Take tags away by the API of the registry's owner; False where it has none, and the registry's is to be used.

    Raises `StepFailed`.
    """
    if build.ecr is None:
        return False
    return await build.ecr.delete_tags(reference.host, reference.repository, tags)
