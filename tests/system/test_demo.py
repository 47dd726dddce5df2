"""`bin/demo` as a newcomer runs it, on a copy of what is committed here."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.docker, pytest.mark.timeout(240)]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The working tree's files, with this environment in place of a new one."""
    if shutil.which("docker") is None or subprocess.run(["docker", "version"], capture_output=True).returncode != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("no container engine answers")
        pytest.skip("no container engine answers")
    place = tmp_path / "clone"
    left_out = shutil.ignore_patterns(".git", ".venv", ".demo", "__pycache__", ".*_cache", "*.egg-info")
    shutil.copytree(ROOT, place, ignore=left_out)
    (place / ".venv").symlink_to(ROOT / ".venv")
    return place


def demo(clone: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run it; nothing of the tester's settings leaks in."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BLACKTREE_")}
    environ |= {"XDG_RUNTIME_DIR": str(clone.parent), "PYTHONPATH": str(clone)}
    return subprocess.run(
        ["bin/demo", *arguments], cwd=clone, env=environ, capture_output=True, text=True, timeout=200, check=False
    )


def test_the_demo_twice(clone: Path) -> None:
    """A commit becomes an image that runs, and the second time finds everything in place."""
    for _ in range(2):
        ran = demo(clone)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "==> succeeded" in ran.stdout
        assert "Hello from an image that Blacktree built." in ran.stdout
        assert str(clone / ".demo" / "state") in ran.stdout
        assert not _runs(clone)
    assert "cached" in ran.stdout
    token = (clone / ".demo" / "state" / "token").read_text().strip()
    assert token not in ran.stdout + ran.stderr


def test_the_demo_with_somebody_s_repository(clone: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    subprocess.run([clone / "bin" / "base-image", "blacktree-demo/base"], check=True, capture_output=True)
    (theirs / "Dockerfile").write_text('FROM blacktree-demo/base\nCMD ["echo", "theirs indeed"]\n')
    git = ["git", "-c", "user.name=T", "-c", "user.email=t@example.invalid", "-c", "init.defaultBranch=main"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *arguments], cwd=theirs, check=True)
    ran = demo(clone, "--repo", str(theirs))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "theirs indeed" in ran.stdout


def test_a_demo_that_fails_says_so(clone: Path) -> None:
    ran = demo(clone, "--repo", "/nonexistent/repository")
    assert ran.returncode == 1
    assert "failed" in ran.stdout
    assert not _runs(clone)
    assert demo(clone, "--nonsense").returncode == 2


def _runs(clone: Path) -> list[str]:
    """Command lines that name this clone: a farm that was left behind."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if f"{clone}/.demo" in line:
                found.append(line)
    return found
