"""What somebody may do at the door: a ladder, each rung holds those below it."""

from enum import StrEnum


class Role(StrEnum):
    """`none`: whoever comes. `view`: read. `submit`: jobs and deployments, too. `admin`: everything."""

    NONE = "none"
    VIEW = "view"
    SUBMIT = "submit"
    ADMIN = "admin"

    def holds(self, other: "Role") -> bool:
        """Whether who has this role has `other`, too."""
        return _LADDER.index(self) >= _LADDER.index(other)


_LADDER = tuple(Role)
