"""What becomes of a build that the engine was asked for, whichever builder it has."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from blacktree.errors import BlacktreeError, EngineLost, StepFailed
from blacktree.providers.base import BuiltImage
from blacktree.providers.docker.ending import Outlet
from blacktree.providers.docker.faults import refused
from blacktree.providers.docker.stream import EngineRefused


class Asked(Protocol):
    """A build under way; `heard`: the engine has had its last word."""

    heard: bool


async def image_of(
    asked: Asked,
    follow: Callable[[], Awaitable[BuiltImage | None]],
    sink: Outlet,
    finish: Callable[[bool], Awaitable[None]],
    cause: Callable[[], BlacktreeError | None] = lambda: None,
) -> BuiltImage:
    """The image that `follow` comes to (None: it did not end although it was stopped); `finish` hears whether it did.

    Raises what is nearest to the cause: what the sink refused, then `cause` (what broke beside the build), then what
    the engine said. `StepFailed` or `EngineLost`, or whatever the sink raised.
    """
    ok = False
    try:
        image = await follow()
        if sink.error is not None:
            raise sink.error
        if image is None:
            raise EngineLost("the engine did not end a build that it was asked to stop")
        ok = True
        return image
    except EngineRefused as error:
        asked.heard = True
        raise refused(error, "build") from None
    except StepFailed as error:
        if (nearer := sink.error or cause()) is not None:
            raise nearer from error
        raise
    finally:
        if asked.heard:
            await finish(ok)
