"""Secrets come from files that only their owner reads."""

import os
from pathlib import Path

import pytest

from blacktree.errors import StepFailed
from blacktree.secretfiles import MAXIMUM_BYTES, SecretDirectory


def put(path: Path, content: bytes, mode: int = 0o600) -> None:
    path.write_bytes(content)
    path.chmod(mode)


def code(directory: SecretDirectory, name: str) -> str:
    with pytest.raises(StepFailed) as caught:
        directory.read([name])
    assert name in caught.value.message
    return caught.value.code


def test_values_are_the_whole_files(tmp_path: Path) -> None:
    put(tmp_path / "npm", b"one\n")
    put(tmp_path / "bin", b"\0\xff")
    directory = SecretDirectory(str(tmp_path), {})
    assert directory.read(["npm", "bin"]) == {"npm": b"one\n", "bin": b"\0\xff"}
    assert directory.names() == ["bin", "npm"]


def test_what_is_not_there(tmp_path: Path) -> None:
    assert code(SecretDirectory(str(tmp_path), {}), "gone") == "secret_missing"
    assert code(SecretDirectory(str(tmp_path / "nowhere"), {}), "gone") == "secret_missing"
    assert code(SecretDirectory("", {}), "gone") == "secret_missing"
    assert SecretDirectory("", {}).names() == []
    assert SecretDirectory(str(tmp_path / "nowhere"), {}).names() == []
    for name in ("..", ".", "../x"):
        assert code(SecretDirectory(str(tmp_path), {}), name) == "secret_missing"


def test_who_misses_one_is_told_the_command_that_sets_it(tmp_path: Path) -> None:
    with pytest.raises(StepFailed) as caught:
        SecretDirectory(str(tmp_path), {}).read(["npm"])
    assert "`blacktree secret set build npm`" in caught.value.advice


def test_what_is_not_safe(tmp_path: Path) -> None:
    put(tmp_path / "open", b"x", 0o640)
    put(tmp_path / "big", b"x" * (MAXIMUM_BYTES + 1))
    (tmp_path / "link").symlink_to("/etc/hostname")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    directory = SecretDirectory(str(tmp_path), {})
    for name in ("open", "big", "link", "directory", "pipe"):
        assert code(directory, name) == "secret_unsafe"


def test_systemd_s_directory_serves_only_where_it_is_named(tmp_path: Path) -> None:
    put(tmp_path / "token", b"v", 0o440)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert code(SecretDirectory("", environ), "token") == "secret_missing"
    assert SecretDirectory(str(tmp_path), environ).read(["token"]) == {"token": b"v"}
    assert code(SecretDirectory(str(tmp_path), {}), "token") == "secret_unsafe"


def test_some_passes_over_what_cannot_be_used(tmp_path: Path) -> None:
    put(tmp_path / "good", b"v")
    put(tmp_path / "open", b"v", 0o644)
    assert SecretDirectory(str(tmp_path)).some(["good", "open", "gone"]) == {"good": b"v"}
