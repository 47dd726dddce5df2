"""Where a registry is made ready before the first byte is pushed."""

import trio

from blacktree.providers.registry.reference import Reference
from blacktree.services.core.context import Build


async def prepare(build: Build, reference: Reference) -> None:
    """Called once an attempt, before anything is pushed to `reference.host`; most registries need nothing.

    Raises `StepFailed`; again=True is tried again as a push is. Repeatable, and safe beside another attempt's.
    """
    await trio.lowlevel.checkpoint()
