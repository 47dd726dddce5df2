"""Whether somebody may ask for something at all. Which repository it is about is seen by `orchestrator.scoped`."""

from blacktree.api.auth import Actor
from blacktree.errors import NotAllowed
from blacktree.role import Role


def check(role: Role, *, farm: bool, actor: Actor | None) -> None:
    """`role`: the least that is needed. `farm`: about the farm as a whole, so not for tokens of some repositories.

    Raises `NotAllowed` (code `unauthorized`, `role_missing` or `farm_wide`).
    """
    if role is Role.NONE:
        return
    if actor is None:
        raise unauthorized()
    if not actor.role.holds(role):
        raise NotAllowed(
            f"this needs the role `{role}`, and the token of {actor.name!r} has `{actor.role}`",
            code="role_missing",
            advice="an admin makes tokens with other roles: `blacktree token create`",
        )
    if farm and actor.repositories:
        raise NotAllowed(
            "this is about the whole farm, and the token is for some repositories alone",
            code="farm_wide",
            advice="use a token without `--repository`",
        )


def unauthorized() -> NotAllowed:
    """Nobody we know."""
    return NotAllowed(
        "this needs a token of the farm",
        code="unauthorized",
        advice="send `Authorization: Bearer TOKEN`; the farm's own is in STATE/token",
    )
