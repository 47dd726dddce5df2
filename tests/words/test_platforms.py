"""What platforms' names mean for placing."""

import pytest

from blacktree.platforms import family, runs


@pytest.mark.parametrize(
    ("platform", "wanted"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/amd64/v2", "linux/amd64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm/v7", "linux/arm"),
        ("linux/armhf", "linux/arm"),
        ("linux/aarch64", "linux/arm64"),
        ("arm64", "linux/arm64"),
        ("linux", ""),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_a_family_has_no_variant(platform: str, wanted: str) -> None:
    assert family(platform) == wanted
    assert not wanted or family(wanted) == wanted


def test_what_a_machine_runs_by_itself() -> None:
    assert runs("x86_64") == ["linux/amd64", "linux/386"]
    assert runs("aarch64") == ["linux/arm64"]
    assert runs("riscv64") == ["linux/riscv64"]
