"""What README.md and docs/ tell a reader to type, typed word for word on a farm with the scripted provider."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.git_server import commit_files, make_repository
from tests.parts.whole_farm import WholeFarm, open_whole_farm, script

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(180)


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def block_with(page: str, language: str, words: str) -> str:
    """The one block that has these words."""
    (found,) = (each for each in blocks(page, language) if words in each)
    return found


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[WholeFarm]:
    """Its state directory is where clients look by default, and `blacktree` is on its PATH."""
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "blacktree"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m blacktree "$@"\n')
    program.chmod(0o755)
    path = f"{programs}:{os.environ.get('PATH', os.defpath)}"
    with open_whole_farm(tmp_path, PATH=path, PYTHONPATH=str(ROOT), HOME=str(tmp_path)) as farm:
        farm.state = tmp_path / "xdg" / "blacktree" / "up"
        yield farm


def type_in(farm: WholeFarm, text: str, where: Path) -> "subprocess.CompletedProcess[str]":
    """A shell that stops at the first command that fails."""
    return subprocess.run(
        ["sh", "-eu", "-c", text], cwd=where, env=farm.environ, capture_output=True, text=True, timeout=150, check=False
    )


def test_the_first_steps(farm: WholeFarm, tmp_path: Path) -> None:
    farm.start()
    repository = make_repository(tmp_path / "app")
    told = block_with("README.md", "sh", "blacktree build .")
    told = told.replace("https://github.com/owner/app.git", str(repository)).replace("drain WORKER", "drain vm")
    # The job of the page takes a while, as an image does: it can be canceled.
    slow = script({"step": "1", "lines": 1}, {"seconds": 600}).replace("'", "'\\''")
    told = told.replace("--detach)", f"--detach --build-arg '{slow}')")
    # Two of the commands go on for ever, or as long as the build.
    told = told.replace("logs $JOB --follow", "logs $JOB").replace("events --follow", "events")
    told = told.replace("retry $JOB", "retry $JOB --detach").replace(" --secret npm_token", "")
    farm.environ["WORKER_ID"] = "vm"
    farm.stop()
    farm.start()
    ran = type_in(farm, told, repository)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("==> succeeded (attempt 1)") == 2
    assert '"state":"succeeded"' in ran.stdout
    assert "wrong branch" in farm.run("job", jobs(farm)["canceled"]).stdout
    assert "worker_drained" in ran.stdout


def jobs(farm: WholeFarm) -> dict[str, str]:
    """A job of each state."""
    return {job["state"]: job["id"] for job in json.loads(farm.run("jobs", "--json").stdout)["jobs"]}


def test_backup_and_restore(farm: WholeFarm, tmp_path: Path) -> None:
    if shutil.which("sqlite3") is None:
        pytest.skip("the sqlite3 program is not installed")
    farm.environ["BLACKTREE_ORCHESTRATOR_LEASE_SECONDS"] = "3"
    farm.start()
    farm.run("build", "/nowhere/app", "--build-arg", script({"step": "1", "lines": 3, "line": "kept {n}"}))
    waiting = farm.run("build", "/nowhere/app", "--detach", "--build-arg", script({"seconds": 600})).stdout.strip()
    farm.wait_for(waiting, "running")
    done = jobs(farm)["succeeded"]
    said = farm.run("logs", done).stdout
    (farm.state / "secrets" / "npm_token").write_text("hush")
    (farm.state / "secrets" / "npm_token").chmod(0o600)
    told = block_with("docs/operating.md", "sh", ".backup")
    (tmp_path / "backup").mkdir()
    told = told.replace("/backup/farm", str(tmp_path / "backup" / "farm")).replace("/srv/blacktree", str(farm.state))
    ran = type_in(farm, told, tmp_path)
    assert ran.returncode == 0, ran.stderr
    token = farm.state.joinpath("token").read_text()
    farm.stop()
    shutil.rmtree(farm.state)

    shutil.copytree(tmp_path / "backup" / "farm", farm.state)
    farm.start()
    assert farm.state.joinpath("token").read_text() == token
    assert farm.state.joinpath("secrets", "npm_token").read_text() == "hush"
    assert farm.run("logs", done).stdout == said
    assert "kept 3" in said
    # It ran when the copy was made: that attempt is given a lease to show itself, then it is to be built again.
    farm.wait_for(waiting, "queued", "running")
    assert [each for each in farm.state.rglob("*") if each.is_file() and each.stat().st_mode & 0o077] == []
    assert farm.run("cancel", waiting).returncode == 0


def test_the_step_of_the_page(farm: WholeFarm, tmp_path: Path) -> None:
    """Its code, its entry point and its setting, as an installed package has them."""
    place = tmp_path / "installed"
    (place / "your_package-1.dist-info").mkdir(parents=True)
    (place / "your_package.py").write_text(block_with("docs/extending.md", "python", "class LicenseStep"))
    (place / "your_package-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: your-package\nVersion: 1\n"
    )
    entry = block_with("docs/extending.md", "toml", "entry-points")
    assert '[project.entry-points."blacktree.steps"]' in entry
    (place / "your_package-1.dist-info" / "entry_points.txt").write_text(
        "[blacktree.steps]\n" + entry.splitlines()[-1].replace('"', "") + "\n"
    )
    settings = tmp_path / "settings.toml"
    settings.write_text(block_with("docs/extending.md", "toml", "steps = "))
    farm.environ["PYTHONPATH"] = f"{place}:{ROOT}"
    farm.environ.pop("BLACKTREE_WORKER_STEPS")
    farm.start("--config", str(settings))
    repository = make_repository(tmp_path / "app")
    ran = farm.run("build", str(repository), code=1)
    assert "==> look for a LICENSE: FAILED" in ran.stdout
    assert "the repository has no LICENSE" in ran.stdout
    commit_files(repository, {"LICENSE": "free\n"})
    assert "==> succeeded (attempt 1)" in farm.run("build", str(repository)).stdout


def test_the_dry_run_of_the_page(farm: WholeFarm, tmp_path: Path) -> None:
    farm.start()
    told = block_with("docs/extending.md", "sh", "scripted").splitlines()[-1]
    ran = type_in(farm, told, tmp_path)
    assert ran.returncode == 1
    assert "line 5" in ran.stdout
    assert "exit code 3" in ran.stdout
