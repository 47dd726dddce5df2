"""The farm as different tokens see it: the whole, or some repositories; each with its own pages, feed and control."""

from collections import OrderedDict
from collections.abc import Callable

from starlette.applications import Starlette

from blacktree.api.auth import Actor
from blacktree.api.farmfeed import FarmFeed
from blacktree.orchestrator.control import Control
from blacktree.orchestrator.scoped import Scoped

MOST_VIEWS = 64


class View:
    """One of them."""

    def __init__(self, control: Control, app: Starlette) -> None:
        self.control = control
        self.feed = FarmFeed(control)
        self.app = app


class Views:
    """Made when somebody first needs them; the ones used least go first."""

    def __init__(self, control: Control, make_app: Callable[[Control], Starlette]) -> None:
        self._control = control
        self._make_app = make_app
        self._whole = View(control, make_app(control))
        self._scoped: OrderedDict[tuple[str, ...], View] = OrderedDict()

    def of(self, actor: Actor | None) -> View:
        """What this one sees; nobody sees nothing by the gate, and has the whole behind it."""
        if actor is None or not actor.repositories:
            return self._whole
        view = self._scoped.pop(actor.repositories, None)
        if view is None:
            control = Scoped(self._control, actor.repositories)
            view = View(control, self._make_app(control))
        self._scoped[actor.repositories] = view
        while len(self._scoped) > MOST_VIEWS:
            self._scoped.popitem(last=False)
        return view
