"""What the program itself needs is locked twice: alone, and with what its development needs. Both say the same."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def _pins(name: str) -> set[str]:
    return set(re.findall(r"^[a-z0-9].*==[^\\\n]*", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))


def _bare(pin: str) -> str:
    return pin.split(";")[0].strip()


def test_the_small_lock_is_a_part_of_the_large_one() -> None:
    small, large = _pins("requirements.run.lock"), _pins("requirements.lock")
    assert len(small) > 30
    assert {_bare(pin) for pin in small} <= {_bare(pin) for pin in large}
