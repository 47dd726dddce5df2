"""What `build` finds where it stands, with real repositories: pushed, ahead, dirty, detached, without a remote."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blacktree.cli.worktree import Found, here, refuse_below, told, uncommitted, without_credentials
from blacktree.errors import BadRequest
from tests.cli.running import run
from tests.parts.git_server import ENVIRONMENT, commit_files, git, make_repository


@pytest.fixture(autouse=True)
def _git_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of a repository with one commit, on its branch main."""
    make_repository(tmp_path / "origin")
    git(tmp_path, "clone", "-q", str(tmp_path / "origin"), "clone")
    return tmp_path / "clone"


def head(path: Path, name: str = "HEAD") -> str:
    return git(path, "rev-parse", name)


def test_what_is_pushed_is_built_and_said(clone: Path) -> None:
    found = here(str(clone))
    assert found[:2] == (str(clone.parent / "origin"), head(clone))
    assert found.lines == [f"building {clone.parent}/origin at {head(clone)[:12]} “a change” (branch main)"]


def test_a_directory_below_is_the_same_repository(clone: Path) -> None:
    (clone / "below").mkdir()
    assert here(str(clone / "below")) == here(str(clone))


def test_what_is_ahead_is_counted_and_the_commit_before_is_built(clone: Path) -> None:
    pushed = head(clone)
    commit_files(clone, {"a": "1"})
    commit_files(clone, {"a": "2"})
    found = here(str(clone))
    assert found.ref == pushed
    assert found.lines[0] == "not pushed: 2 commits of branch main; what is built is the commit before"
    assert f"at {pushed[:12]} " in found.lines[1]


def test_a_branch_that_was_never_pushed_goes_back_to_where_it_began(clone: Path) -> None:
    pushed = head(clone)
    git(clone, "switch", "-q", "-c", "topic")
    commit_files(clone, {"a": "1"})
    assert here(str(clone)).ref == pushed
    assert "1 commit of branch topic" in here(str(clone)).lines[0]


def test_after_a_merge_the_newest_that_is_pushed_is_built(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = clone.parent / "origin"
    commit_files(clone, {"mine": "1"})
    monkeypatch.setitem(ENVIRONMENT, "GIT_COMMITTER_DATE", "2026-02-02T03:04:05Z")
    theirs = commit_files(origin, {"theirs": "1"})
    git(clone, "pull", "-q", "--no-rebase", "--no-edit")
    assert here(str(clone)).ref == theirs
    assert "not pushed: 2 commits" in here(str(clone)).lines[0]


def test_what_is_not_committed_is_told(clone: Path) -> None:
    (clone / "Dockerfile").write_text("FROM other\n")
    (clone / "new\x1b[2J").write_text("")
    (clone / "b").write_text("")
    (clone / "c").write_text("")
    line = here(str(clone)).lines[0]
    assert line.startswith("not committed: 1 changed file and 3 untracked files (Dockerfile, b, c, …)")
    assert here(str(clone)).ref == head(clone)
    (clone / "b").unlink()
    (clone / "c").unlink()
    assert "\x1b" not in here(str(clone)).lines[0]
    git(clone, "mv", "Dockerfile", "Dockerfile.old")
    (clone / "new\x1b[2J").unlink()
    assert "1 changed file (Dockerfile.old)" in here(str(clone)).lines[0]


def test_ignored_files_are_nobodys_business(clone: Path) -> None:
    commit_files(clone, {".gitignore": "junk\n"})
    git(clone, "push", "-q", "origin", "HEAD:refs/heads/other")
    (clone / "junk").write_text("")
    assert len(here(str(clone)).lines) == 1


def test_a_detached_head(clone: Path) -> None:
    first = head(clone)
    commit_files(clone, {"a": "1"})
    git(clone, "checkout", "-q", "--detach", first)
    assert here(str(clone)).ref == first
    assert here(str(clone)).lines[-1].endswith("(the detached HEAD)")
    commit_files(clone, {"b": "1"})
    assert here(str(clone)).ref == first


@pytest.mark.parametrize(
    ("url", "bare", "had"),
    [
        ("https://me:hush@git.example/team/app.git", "https://git.example/team/app.git", True),
        ("https://ghp_token@git.example:8443/app", "https://git.example:8443/app", True),
        ("https://git.example/app.git?private_token=hush", "https://git.example/app.git", True),
        ("ssh://git:hush@git.example/app", "ssh://git@git.example/app", True),
        ("ssh://git@git.example/app", "ssh://git@git.example/app", False),
        ("git@git.example:team/app.git", "git@git.example:team/app.git", False),
        ("https://git.example/app.git", "https://git.example/app.git", False),
    ],
)
def test_credentials_of_a_remote_stay_here(clone: Path, url: str, bare: str, had: bool) -> None:
    assert without_credentials(url) == (bare, had)
    git(clone, "remote", "set-url", "origin", url)
    found = here(str(clone))
    assert found.repository == bare
    assert not any("hush" in line or "token" in line for line in found.lines)
    assert any("user name or password" in line for line in found.lines) is had


@settings(max_examples=60)
@given(st.text("abc:/@?#%é\x1b", max_size=20), st.text("abc:@", min_size=1, max_size=12))
def test_no_password_is_ever_told(rest: str, password: str) -> None:
    secret = f"hush{password.replace(':', '').replace('@', '')}"
    try:
        text = told(f"https://user:{secret}@host/{rest}")
    except BadRequest as error:
        text = str(error)
    assert secret not in text
    assert "\x1b" not in text


def test_a_rewritten_remote_is_what_git_would_fetch_from(clone: Path) -> None:
    git(clone, "config", "url.https://me:hush@git.example/.insteadOf", "farm:")
    git(clone, "remote", "set-url", "origin", "farm:team/app.git")
    assert here(str(clone)).repository == "https://git.example/team/app.git"


def test_the_branchs_own_remote_wins(clone: Path) -> None:
    git(clone, "remote", "add", "fork", "https://git.example/fork.git")
    git(clone, "update-ref", "refs/remotes/fork/main", "HEAD")
    git(clone, "config", "branch.main.remote", "fork")
    assert here(str(clone)).repository == "https://git.example/fork.git"


def test_a_relative_remote_is_taken_from_the_top(clone: Path) -> None:
    git(clone, "remote", "set-url", "origin", "../origin")
    (clone / "below").mkdir()
    assert here(str(clone / "below")).repository == str(clone.parent / "origin")


def test_with_a_ref_nothing_is_looked_at(clone: Path) -> None:
    (clone / "dirty").write_text("")
    commit_files(clone, {"a": "1"})
    assert here(str(clone), ref="v1") == Found(str(clone.parent / "origin"), "v1", [])


def test_where_nothing_can_be_built_it_is_said_why(tmp_path: Path, clone: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(BadRequest) as refused:
            here(str(path))
        return str(refused.value)

    (tmp_path / "plain").mkdir()
    assert "is in no git repository" in refusal(tmp_path / "plain")
    git(tmp_path / "plain", "init", "-q")
    assert "no commit yet" in refusal(tmp_path / "plain")
    commit_files(tmp_path / "plain", {"a": "1"})
    assert "has no remote" in refusal(tmp_path / "plain")
    git(tmp_path / "plain", "remote", "add", "one", "https://git.example/one")
    assert "git push one HEAD" in refusal(tmp_path / "plain")
    git(tmp_path / "plain", "remote", "add", "two", "https://git.example/two")
    assert "the remotes one, two" in refusal(tmp_path / "plain")
    git(clone, "remote", "set-url", "origin", "ext::sh -c hush")
    assert "would run a program" in refusal(clone)


def test_a_bare_repository_has_no_work_tree_to_warn_of(clone: Path) -> None:
    git(clone.parent, "clone", "-q", "--bare", str(clone), "bare.git")
    assert uncommitted(str(clone.parent / "bare.git")) == []
    assert "has the remote" not in str(uncommitted(str(clone.parent)))


def test_the_command_tells_it_on_stderr_and_goes_on(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (clone / "dirty").write_text("")
    git(clone, "remote", "set-url", "origin", "https://me:hush@git.example/app.git")
    monkeypatch.chdir(clone)
    ran = run("build")
    assert (ran.code, ran.out) == (6, "")
    assert [line.split(":")[1].split()[0] for line in ran.err.splitlines()] == ["the", "not", "building", "no"]
    assert "hush" not in ran.err
    assert "1 untracked file (dirty)" in run("build", ".").err
    for quiet in (("--ref", "main"), ("https://git.example/app.git",), (".", "--ref", "main")):
        assert len(run("build", *quiet).err.splitlines()) == (2 if quiet[0] == "--ref" else 1)


def test_a_repository_that_git_refuses_is_not_called_none(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (clone / ".git/config").write_text("[core\n")
    with pytest.raises(BadRequest, match=r"git refuses the repository of .*/clone: .*config.*; mend it"):
        here(str(clone))
    git(clone.parent, "clone", "-q", str(clone.parent / "origin"), "foreign")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(BadRequest, match=r"dubious ownership in repository.*--add safe\.directory"):
        here(str(clone.parent / "foreign"))


def test_a_directory_inside_a_repository_is_refused_with_the_command_to_use(clone: Path) -> None:
    below = clone / "a b" / "c"
    below.mkdir(parents=True)
    with pytest.raises(BadRequest) as refused:
        refuse_below(str(below))
    assert f"`{clone} --context 'a b/c'`" in str(refused.value)
    ran = run("build", str(below), "--server", "http://127.0.0.1:9", "--token", "t")
    assert (ran.code, ran.out) == (2, "")
    git(clone, "init", "-q", "--bare", "bare.git")
    for repository in (clone, clone / "bare.git", clone / ".git", clone.parent):
        refuse_below(str(repository))
