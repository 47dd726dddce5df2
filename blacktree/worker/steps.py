"""The steps of a build by name, from entry points: ours and those from outside the package."""

from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points

from blacktree.errors import BadRequest
from blacktree.services.core.context import Step
from blacktree.strict import nearest

GROUP = "blacktree.steps"

# Ours, also where the package's metadata are older than its code (an editable installation after an update).
OWN = {"push": "blacktree.services.image.push:PushStep"}

MakeStep = Callable[[], Step]


def find_steps(names: Sequence[str]) -> list[tuple[str, MakeStep]]:
    """The steps in their order. Raises `BadRequest` (code `unknown_step`) with what there is."""
    known = {name: EntryPoint(name, value, GROUP) for name, value in OWN.items()}
    known |= {point.name: point for point in entry_points(group=GROUP)}
    found: list[tuple[str, MakeStep]] = []
    for name in names:
        if name not in known:
            guess = nearest(name, list(known))
            raise BadRequest(
                f"worker.steps: there is no step `{name}`",
                path="worker.steps",
                code="unknown_step",
                advice=f"did you mean `{guess}`?" if guess else f"installed: {', '.join(sorted(known))}",
            )
        try:
            found.append((name, known[name].load()))
        except (ImportError, AttributeError) as error:
            raise BadRequest(
                f"worker.steps: the step `{name}` ({known[name].value}) cannot be loaded: {error}",
                path="worker.steps",
                code="unknown_step",
                advice="install what it needs, or leave it out",
            ) from error
    return found
