"""Who starts workers for the scaler: `open_worker_provider` finds a provider by its name among the installed ones."""

from contextlib import AbstractAsyncContextManager
from importlib import import_module
from importlib.metadata import entry_points

from blacktree.errors import BadRequest
from blacktree.scaling import WorkerProvider, WorkerProviderSettings
from blacktree.strict import nearest

GROUP = "blacktree.worker_providers"

OURS = {
    "processes": "blacktree.providers.scaling.processes",
    "containers": "blacktree.providers.scaling.containers",
}


def open_worker_provider(name: str, settings: WorkerProviderSettings) -> AbstractAsyncContextManager[WorkerProvider]:
    """The provider of this name, not yet entered; see `blacktree.scaling`.

    Raises `BadRequest` for a name that nobody has (it tells the known ones) and for options that cannot be.
    """
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name in points:
        found = points[name].load()(settings)
    elif name in OURS:
        found = import_module(OURS[name]).open_provider(settings)
    else:
        known = sorted({*points, *OURS})
        guess = nearest(name, known)
        raise BadRequest(
            f"no worker provider is called `{name}`; known are: {', '.join(known)}",
            path=f"scaling.pools.{settings.pool}.provider",
            code="unknown_provider",
            advice=f"did you mean `{guess}`?" if guess else "",
        )
    opened: AbstractAsyncContextManager[WorkerProvider] = found
    return opened
