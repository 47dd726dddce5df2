"""A disk that is full, or has no room for files, refuses builds in words."""

from pathlib import Path

from blacktree.services.core.resources import free_bytes, human_bytes, shortage
from tests.parts.disk import few_files


def test_enough_and_too_little(tmp_path: Path) -> None:
    assert shortage([tmp_path], 1) == ""
    (tmp_path / "x").mkdir()
    reason = shortage([tmp_path, tmp_path / "x"], free_bytes(tmp_path) * 2)
    assert reason.count("are needed") == 1, "one disk, told once"


def test_no_room_for_files(tmp_path: Path) -> None:
    with few_files(tmp_path / "disk") as disk:
        assert "inodes" in shortage([tmp_path, disk], 1)
        assert str(disk) in shortage([tmp_path, disk], 1)
        assert shortage([tmp_path, disk], 0) == "", "switched off"


def test_what_is_not_here_is_not_asked(tmp_path: Path) -> None:
    assert shortage([tmp_path / "another" / "machine"], 1 << 60) == ""


def test_sizes_in_words() -> None:
    assert human_bytes(512) == "512 bytes"
    assert human_bytes(3 << 29) == "1.5 GiB"
    assert human_bytes(5 << 40) == "5.0 TiB"
