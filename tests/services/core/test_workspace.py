"""A job's directory comes and goes; one process holds the state directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from blacktree.errors import Conflict, StorageFailed
from blacktree.services.core.workspace import lock_state_directory, open_workspace, remove_tree, sweep, work_directory


async def test_it_is_private_and_gone_afterwards(tmp_path: Path) -> None:
    async with open_workspace(tmp_path, "job", 1) as path:
        assert path == work_directory(tmp_path) / "job-1"
        assert path.stat().st_mode & 0o777 == 0o700
        (path / "file").write_text("x")
    assert not path.exists()


async def test_it_is_gone_when_cancelled(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with open_workspace(tmp_path, "job", 1) as path:
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert not path.exists()


async def test_leftovers_of_the_same_attempt_are_removed_first(tmp_path: Path) -> None:
    left = work_directory(tmp_path) / "job-1" / "deep"
    left.mkdir(parents=True)
    async with open_workspace(tmp_path, "job", 1) as path:
        assert list(path.iterdir()) == []


async def test_sweep_spares_the_living(tmp_path: Path) -> None:
    for name in ("a-1", "a-b-2", "dead-1", "junk"):
        (work_directory(tmp_path) / name / "x").mkdir(parents=True)
    assert await sweep(tmp_path, {"a", "a-b"}) == ["dead-1", "junk"]
    assert sorted(os.listdir(work_directory(tmp_path))) == ["a-1", "a-b-2"]
    assert await sweep(tmp_path / "nowhere", ()) == []


async def test_a_state_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="cannot make"):
        async with open_workspace(tmp_path / "file", "job", 1):
            pass


def test_a_very_deep_tree_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d" * 20, dir_fd=here)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        inner = os.open("d" * 20, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    remove_tree(top)
    assert not top.exists()
    remove_tree(top)


def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "top" / ".moved-0").write_text("a name that removal itself would use")
    (tmp_path / "top" / "a" / "b").mkdir(parents=True)
    remove_tree(tmp_path / "top")
    assert (tmp_path / "kept" / "file").exists()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    remove_tree(tmp_path / "link")
    assert (tmp_path / "kept").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_odd_modes_are_no_obstacle(tmp_path: Path) -> None:
    """As an ordinary user: root is stopped by no mode."""
    script = """
import os, sys
from pathlib import Path
from blacktree.services.core.workspace import remove_tree
os.chdir("/"); os.setgid(65534); os.setuid(65534)
top = Path(sys.argv[1]) / "top"
(top / "a" / "b").mkdir(parents=True)
(top / "a" / "b" / "f").write_text("x")
for path in (top / "a" / "b", top / "a", top):
    path.chmod(0)
remove_tree(top)
assert not top.exists()
"""
    shared = Path("/tmp") / f"modes-{os.getpid()}"
    shared.mkdir()
    try:
        shared.chmod(0o777)
        environment = {"PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
        done = subprocess.run(
            [sys.executable, "-c", script, str(shared)], env=environment, capture_output=True, text=True, check=False
        )
        assert done.stderr == ""
    finally:
        remove_tree(shared)


def test_one_process_holds_the_state_directory(tmp_path: Path) -> None:
    with lock_state_directory(tmp_path / "state"):
        with pytest.raises(Conflict) as caught:
            with lock_state_directory(tmp_path / "state"):
                pass
        assert caught.value.code == "state_in_use"
        assert str(os.getpid()) in caught.value.message
    with lock_state_directory(tmp_path / "state"):
        pass
