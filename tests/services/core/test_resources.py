"""A full disk refuses builds in words."""

from pathlib import Path

from blacktree.services.core.resources import disk_refusal, free_bytes, human_bytes


async def test_enough_and_too_little(tmp_path: Path) -> None:
    assert await disk_refusal([tmp_path / "not" / "yet"], 1) == ""
    refusal = await disk_refusal([tmp_path, tmp_path / "x"], free_bytes(tmp_path) * 2)
    assert "are needed" in refusal
    assert refusal.count("are needed") == 1, "one disk, told once"


async def test_a_directory_that_cannot_be_asked(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert await disk_refusal([Path("/proc/self/mem/x")], 1)


def test_sizes_in_words() -> None:
    assert human_bytes(512) == "512 bytes"
    assert human_bytes(3 << 29) == "1.5 GiB"
    assert human_bytes(5 << 40) == "5.0 TiB"
