"""Which foreign programs the kernel runs, as its files say it."""

from pathlib import Path

from blacktree.providers.docker.binfmt import emulated


def put(directory: Path, name: str, *, state: str = "enabled", flags: str = "OCF") -> None:
    text = f"{state}\ninterpreter /usr/bin/{name}-static\nflags: {flags}\noffset 0\nmagic 7f454c46\n"
    (directory / name).write_text(text)


def test_only_what_works_in_a_container_counts(tmp_path: Path) -> None:
    put(tmp_path, "qemu-aarch64")
    put(tmp_path, "qemu-arm", flags="F")
    put(tmp_path, "qemu-s390x", state="disabled")
    put(tmp_path, "qemu-riscv64", flags="OC")
    put(tmp_path, "qemu-mips64el")
    put(tmp_path, "rosetta")
    put(tmp_path, "python3.11")
    (tmp_path / "register").write_text("")
    assert emulated(tmp_path) == ["linux/amd64", "linux/arm", "linux/arm64", "linux/mips64le"]


def test_where_nothing_can_be_seen_nothing_is_claimed(tmp_path: Path) -> None:
    assert emulated(tmp_path / "missing") == []
