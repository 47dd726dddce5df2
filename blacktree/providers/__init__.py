"""Where builds run. `open_provider` finds a provider by its name among the installed ones."""

from contextlib import AbstractAsyncContextManager
from importlib.metadata import entry_points

from blacktree.errors import BadRequest
from blacktree.providers.base import Provider, ProviderSettings
from blacktree.strict import nearest

GROUP = "blacktree.providers"


def open_provider(name: str, settings: ProviderSettings) -> AbstractAsyncContextManager[Provider]:
    """The provider of this name (entry point group `blacktree.providers`), not yet entered.

    Raises `BadRequest` (code `unknown_provider`) that names the known ones.
    """
    known = {point.name: point for point in entry_points(group=GROUP)}
    if name not in known:
        guess = nearest(name, list(known))
        raise BadRequest(
            f"no provider is called `{name}`; known are: {', '.join(sorted(known)) or 'none'}",
            path="worker.provider",
            code="unknown_provider",
            advice=f"did you mean `{guess}`?" if guess else "",
        )
    opened: AbstractAsyncContextManager[Provider] = known[name].load()(settings)
    return opened
