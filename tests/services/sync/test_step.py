"""The sync step against real git hosts."""

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from blacktree.concurrency.lockfile import try_lock
from blacktree.concurrency.process import open_process
from blacktree.errors import StepFailed
from blacktree.services.sync.git import Git
from blacktree.services.sync.mirrors import trim, warm
from blacktree.services.sync.step import SyncStep
from tests.parts.git_server import GitServer, commit_files, git, git_daemon, git_server, make_repository
from tests.services.sync.conftest import Syncs

TOKEN = "tok-3n-S3CRET/+value"


def gits() -> list[tuple[int, bytes]]:
    """The git processes that this test process started, at any depth, with their arguments."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{name}/environ").read_bytes()
            argv = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        if b"GIT_CONFIG_GLOBAL=" + str(STATE[0]).encode() in environment:
            found.append((int(name), argv))
    return found


STATE: list[Path] = [Path("/nonexistent")]


@pytest.fixture(autouse=True)
def _state(syncs: Syncs) -> None:
    STATE[0] = syncs.state


def mirror_of(syncs: Syncs) -> Path:
    return next((syncs.state / "mirrors").glob("*.git"))


async def until(true: Callable[[], object], seconds: float = 40) -> bool:
    """Look until it is so (bound by `seconds`); for what only the outside can tell."""
    with trio.move_on_after(seconds):
        while not true():
            await trio.sleep(0.005)
        return True
    return False


async def fails(syncs: Syncs, repository: str, **how: object) -> StepFailed:
    with trio.fail_after(100), pytest.raises(StepFailed) as caught:
        await syncs.sync(repository, **how)
    assert syncs.heard.steps[-1] == ("sync", False)
    assert caught.value.step == "sync"
    assert caught.value.message
    return caught.value


async def test_head_over_http(syncs: Syncs, host: GitServer, app: Path) -> None:
    build = await syncs.sync(f"{host.url}/app")
    assert build.commit == git(app, "rev-parse", "HEAD")
    assert syncs.on_record == [build.commit]
    assert await syncs.files(build) == {"Dockerfile": b"FROM scratch\n", "src/main.txt": b"hello\n"}
    assert syncs.heard.steps == [("sync", True)]
    assert warm(syncs.state) == [f"{host.url}/app"]


async def test_branch_tag_annotated_tag_and_commits(syncs: Syncs, host: GitServer, app: Path) -> None:
    first = git(app, "rev-parse", "HEAD")
    git(app, "tag", "light")
    git(app, "tag", "-a", "heavy", "-m", "x")
    git(app, "checkout", "-q", "-b", "feature/x")
    second = commit_files(app, {"new": "1"})
    git(app, "checkout", "-q", "main")
    expected = {
        "light": first,
        "heavy": first,
        "refs/tags/heavy": first,
        "heads/main": first,
        "feature/x": second,
        second: second,
        second[:9]: second,
        git(app, "rev-parse", "heavy"): first,
        "HEAD": first,
    }
    for ref, commit in expected.items():
        assert (await syncs.sync(f"{host.url}/app", ref=ref)).commit == commit, ref


@pytest.mark.parametrize("known", [False, True])
async def test_the_id_of_a_tag_is_recorded_as_its_commit_s(
    syncs: Syncs, host: GitServer, app: Path, known: bool
) -> None:
    git(app, "tag", "-a", "v1", "-m", "x")
    if known:
        await syncs.sync(f"{host.url}/app", ref="v1")
    build = await syncs.sync(f"{host.url}/app", ref=git(app, "rev-parse", "v1"))
    assert build.commit == syncs.on_record[-1] == git(app, "rev-parse", "HEAD")
    assert build.context is not None


async def test_files_that_are_pointers_to_others_are_told(syncs: Syncs, host: GitServer, app: Path) -> None:
    await syncs.sync(f"{host.url}/app")
    assert syncs.heard.notices == []
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    commit_files(app, {"big.bin": pointer, "not.bin": "x" * len(pointer)})
    build = await syncs.sync(f"{host.url}/app")
    assert syncs.heard.notices == ["lfs_not_fetched"]
    # As they are: what is in the repository is what is built.
    assert (await syncs.files(build))["big.bin"] == pointer.encode()


async def test_a_name_that_is_branch_and_tag_is_the_branch_and_told(syncs: Syncs, host: GitServer, app: Path) -> None:
    git(app, "tag", "both")
    git(app, "checkout", "-q", "-b", "both")
    commit = commit_files(app, {"new": "1"})
    assert (await syncs.sync(f"{host.url}/app", ref="both")).commit == commit
    assert syncs.heard.notices == ["ref_ambiguous"]


async def test_a_pinned_commit_is_built_although_the_branch_moved(syncs: Syncs, host: GitServer, app: Path) -> None:
    first = (await syncs.sync(f"{host.url}/app", ref="main")).commit
    git(app, "commit", "-q", "--amend", "-m", "rewritten")
    commit_files(app, {"more": "2"})
    asked = len(host.requests)
    build = await syncs.sync(f"{host.url}/app", ref="main", commit=first)
    assert build.commit == first
    assert len(host.requests) == asked, "the mirror has it: no network"
    assert "more" not in await syncs.files(build)
    assert (await syncs.sync(f"{host.url}/app", ref="main")).commit != first


async def test_what_is_not_there(syncs: Syncs, host: GitServer, app: Path) -> None:
    assert (await fails(syncs, f"{host.url}/nothing")).code == "repository_not_found"
    assert (await fails(syncs, f"{host.url}/app", ref="nope")).code == "ref_not_found"
    assert (await fails(syncs, f"{host.url}/app", ref="abcd12")).code == "ref_not_found"
    assert (await fails(syncs, f"{host.url}/app", ref="0" * 39 + "1")).code == "ref_not_found"
    gone = await fails(syncs, f"{host.url}/app", commit="0" * 39 + "1")
    assert (gone.code, gone.again) == ("commit_gone", False)
    git(app, "update-ref", "refs/heads/tree", git(app, "rev-parse", "HEAD"))
    git(app, "tag", "blob", git(app, "rev-parse", "HEAD:Dockerfile"))
    assert (await fails(syncs, f"{host.url}/app", ref="blob")).code == "ref_not_commit"
    make_repository(host.root / "empty")
    git(host.root / "empty", "update-ref", "-d", "HEAD")
    assert (await fails(syncs, f"{host.url}/empty")).code == "repository_empty"


@pytest.mark.parametrize(
    "ref", ["--upload-pack=touch /tmp/x", "-x", "a..b", "main~1", "a b", "x.lock", "@{-1}", "a:b", "refs/heads/*", "/a"]
)
async def test_hostile_refs(syncs: Syncs, host: GitServer, app: Path, ref: str) -> None:
    assert (await fails(syncs, f"{host.url}/app", ref=ref)).code == "ref_invalid"
    assert host.requests == []


async def test_a_host_that_answers_badly(syncs: Syncs, host: GitServer, app: Path) -> None:
    host.garbage = True
    assert (await fails(syncs, f"{host.url}/app")).code == "repository_answer_invalid"
    host.garbage = False
    host.status = 503
    broken = await fails(syncs, f"{host.url}/app")
    assert (broken.code, broken.again) == ("fetch_interrupted", True)
    host.status = 403
    assert (await fails(syncs, f"{host.url}/app")).code == "credentials_needed"
    refused = await fails(syncs, "http://127.0.0.1:1/app")
    assert (refused.code, refused.again) == ("host_unreachable", True)
    unknown = await fails(syncs, "https://no-such-host.invalid/app")
    assert (unknown.code, unknown.again) == ("host_unreachable", True)


async def test_a_host_that_hangs_is_given_up(syncs: Syncs, host: GitServer, app: Path) -> None:
    host.hang = True
    syncs.config["git_stall_seconds"] = 1.0
    error = await fails(syncs, f"{host.url}/app")
    assert (error.code, error.again) == ("repository_stalled", True)
    assert gits() == []


async def test_a_daemon_that_accepts_and_says_nothing_is_given_up(syncs: Syncs) -> None:
    syncs.config["git_stall_seconds"] = 0.5
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    try:
        error = await fails(syncs, f"git://127.0.0.1:{port}/app")
    finally:
        await listeners[0].aclose()
    assert (error.code, error.again) == ("repository_stalled", True)
    assert gits() == []


def credentials(syncs: Syncs, *lines: str, mode: int = 0o600) -> None:
    path = syncs.path / "git-credentials"
    path.write_text("\n".join(lines) + "\n")
    path.chmod(mode)
    syncs.config["git_credentials_file"] = str(path)


async def test_credentials(syncs: Syncs, host: GitServer, app: Path) -> None:
    host.login = f"robot:{TOKEN}"
    assert (await fails(syncs, f"{host.url}/app")).code == "credentials_needed"
    encoded = TOKEN.replace("/", "%2F").replace("+", "%2B")
    credentials(
        syncs, f"http://robot:wrong@127.0.0.1:{host.port}/other", f"http://robot:{encoded}@127.0.0.1:{host.port}"
    )
    build = await syncs.sync(f"{host.url}/app")
    assert await syncs.files(build)
    credentials(syncs, f"http://robot:wrong-{encoded}@127.0.0.1:{host.port}")
    refused = await fails(syncs, f"{host.url}/app", ref="main")
    assert refused.code == "credentials_needed"
    assert TOKEN not in str(refused)


async def test_credentials_that_others_can_read_are_refused(syncs: Syncs, host: GitServer, app: Path) -> None:
    credentials(syncs, "https://a:b@host", mode=0o644)
    error = await fails(syncs, f"{host.url}/app")
    assert error.code == "credentials_unsafe"
    assert "chmod 600" in error.advice
    credentials(syncs, "https://user:sekret-value@")
    error = await fails(syncs, f"{host.url}/app")
    assert error.code == "credentials_unsafe"
    assert "sekret" not in str(error)


async def test_a_redirect_to_another_host_gets_no_credentials(syncs: Syncs, host: GitServer, app: Path) -> None:
    credentials(syncs, f"http://robot:{TOKEN}@127.0.0.1:{host.port}".replace("/+", "%2F%2B"))
    with git_server(host.root) as other:
        other.login = f"robot:{TOKEN}"
        host.redirect = other.url
        assert (await fails(syncs, f"{host.url}/app")).code == "credentials_needed"


async def test_the_token_is_in_no_argument_and_no_file(syncs: Syncs, host: GitServer, app: Path) -> None:
    """Looked at again and again while a slow fetch is under way."""
    commit_files(app, {"big": os.urandom(48_000)})
    host.login = f"robot:{TOKEN}"
    host.delay = 0.01
    credentials(syncs, f"http://robot:{TOKEN.replace('/', '%2F').replace('+', '%2B')}@127.0.0.1:{host.port}")
    seen: list[bytes] = []

    async def look() -> None:
        while True:
            seen.extend(argv for _, argv in gits())
            await trio.sleep(0.01)

    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await syncs.sync(f"{host.url}/app")
            nursery.cancel_scope.cancel()
    assert any(b"fetch" in argv for argv in seen), "the fetch was seen at work"
    assert any(b"remote-http" in argv or b"index-pack" in argv for argv in seen)
    assert [argv for argv in seen if TOKEN.encode() in argv or b"S3CRET" in argv] == []
    for path in syncs.state.rglob("*"):
        if path.is_file():
            assert b"S3CRET" not in path.read_bytes(), path
    assert b"S3CRET" not in syncs.heard.text


@pytest.mark.parametrize("moment", ["asked", "started", "receiving"])
async def test_cancel_leaves_no_process_and_a_usable_mirror(
    syncs: Syncs, host: GitServer, app: Path, moment: str
) -> None:
    # Several packets of 64 KiB: git begins to store the pack when it has the first one whole.
    commit_files(app, {"big": os.urandom(250_000)})
    host.delay = 0.004
    host.hang = moment == "asked"
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            build = syncs.build(f"{host.url}/app")
            nursery.start_soon(SyncStep().run, build)
            if moment == "asked":
                assert await until(host.arrived.is_set)
            else:
                assert await until(lambda: any(b"fetch\0" in argv for _, argv in gits()))
            if moment == "receiving":
                assert await until(lambda: [*syncs.state.glob("mirrors/*.git/objects/pack/tmp_pack_*")])
            nursery.cancel_scope.cancel()
    assert gits() == []
    assert list(syncs.state.rglob("tmp_*")) == []
    assert build.context is None
    assert syncs.heard.steps == [("sync", False)]
    host.delay, host.hang = 0, False
    assert "big" in await syncs.files(await syncs.sync(f"{host.url}/app"))
    assert list(mirror_of(syncs).rglob("tmp_*")) == []


async def test_a_disk_that_is_full_is_given_back(syncs: Syncs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_repository(tmp_path / "app")
    commit_files(app, {"big": os.urandom(300_000)})
    # git itself finds no room: no file of its may grow beyond this.
    limited = tmp_path / "bin" / "git"
    limited.parent.mkdir()
    limited.write_text(f'#!/bin/sh\nulimit -f 200\nexec {shutil.which("git")} "$@"\n')
    limited.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{limited.parent}:{os.environ['PATH']}")
        await fails(syncs, str(app), local=True)
    assert list(syncs.state.rglob("tmp_*")) == []
    assert "big" in await syncs.files(await syncs.sync(str(app), local=True))


async def test_a_state_directory_without_room_is_a_full_disk(
    syncs: Syncs, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Git, "prepare", full)
    error = await fails(syncs, str(app), local=True)
    assert (error.code, error.again) == ("disk_full", True)


async def test_two_builds_of_one_repository_at_once(syncs: Syncs, host: GitServer, app: Path) -> None:
    host.delay = 0.001
    builds = [syncs.build(f"{host.url}/app", ref="main") for _ in range(4)]
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            for build in builds:
                nursery.start_soon(SyncStep().run, build)
    assert {build.commit for build in builds} == {git(app, "rev-parse", "HEAD")}
    for build in builds:
        assert await syncs.files(build)


async def test_packs_are_joined_and_what_they_have_is_not_worked_over(
    syncs: Syncs, host: GitServer, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blacktree.services.sync.mirrors._MAXIMUM_PACKS", 4)
    text = os.urandom(50_000).hex()
    for number in range(8):
        # Each is nearly all of the one before: git would find the delta if it looked.
        commit_files(app, {f"big-{number}": f"{number}{text}".encode()})
        build = await syncs.sync(f"{host.url}/app", ref="main")
    files = await syncs.files(build)
    assert [files[f"big-{number}"] for number in range(8)] == [f"{number}{text}".encode() for number in range(8)]
    packs = list(mirror_of(syncs).glob("objects/pack/*.pack"))
    assert len(packs) <= 5
    told = "".join(git(mirror_of(syncs), "verify-pack", "-v", str(pack)) for pack in packs)
    assert told.count(" blob ") >= 8
    assert not [line for line in told.splitlines() if " blob " in line and len(line.split()) > 5]


@pytest.mark.parametrize("damage", ["objects", "head", "pack", "empty", "config"])
async def test_a_corrupted_mirror_is_made_anew(syncs: Syncs, host: GitServer, app: Path, damage: str) -> None:
    commit = (await syncs.sync(f"{host.url}/app")).commit
    mirror = mirror_of(syncs)
    packs = [*mirror.glob("objects/pack/*")]
    for pack in packs:
        pack.chmod(0o600)
    if damage == "objects":
        for pack in packs:
            pack.unlink()
    elif damage == "head":
        (mirror / "HEAD").write_bytes(b"\0\0\0")
    elif damage == "config":
        (mirror / "config").write_bytes(b"[[[")
    else:
        for pack in packs:
            if pack.suffix == ".pack":
                pack.write_bytes(b"" if damage == "empty" else b"PACK" + os.urandom(pack.stat().st_size))
    with trio.fail_after(100):
        build = await syncs.sync(f"{host.url}/app", commit=commit)
    assert await syncs.files(build) == {"Dockerfile": b"FROM scratch\n", "src/main.txt": b"hello\n"}


async def test_a_blob_that_is_found_damaged_while_read_mends_the_next_attempt(
    syncs: Syncs, host: GitServer, app: Path
) -> None:
    build = await syncs.sync(f"{host.url}/app")
    for pack in mirror_of(syncs).glob("objects/pack/*"):
        pack.unlink()
    with pytest.raises(StepFailed) as caught:
        await syncs.files(build)
    assert (caught.value.code, caught.value.again) == ("mirror_corrupt", True)
    assert await syncs.files(await syncs.sync(f"{host.url}/app", commit=build.commit))


async def test_a_repository_over_the_limit_is_refused(syncs: Syncs, host: GitServer, app: Path) -> None:
    commit_files(app, {"big": os.urandom(300_000)})
    syncs.config["maximum_repository_bytes"] = 100_000
    error = await fails(syncs, f"{host.url}/app")
    assert (error.code, error.again) == ("repository_too_large", False)
    assert list((syncs.state / "mirrors").glob("*.git")) == []


async def test_what_branches_have_left_does_not_count_towards_the_limit(
    syncs: Syncs, host: GitServer, app: Path
) -> None:
    syncs.config["maximum_repository_bytes"] = 1_000_000
    base = git(app, "rev-parse", "HEAD")
    for number in range(5):
        git(app, "reset", "-q", "--hard", base)
        commit = commit_files(app, {"big": os.urandom(300_000)})
        assert (await syncs.sync(f"{host.url}/app", ref="main")).commit == commit, number


async def test_a_shallow_clone_is_built(syncs: Syncs, tmp_path: Path) -> None:
    origin = make_repository(tmp_path / "origin")
    commit_files(origin, {"f": "2"})
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{origin}", "shallow")
    shallow = tmp_path / "shallow"
    build = await syncs.sync(str(shallow), local=True)
    assert build.commit == git(shallow, "rev-parse", "HEAD")
    assert await syncs.files(build) == {"Dockerfile": b"FROM scratch\n", "f": b"2"}
    second = commit_files(shallow, {"f": "3"})
    assert (await syncs.sync(str(shallow), local=True, ref=second)).commit == second
    git(shallow, "fetch", "-q", "--unshallow")
    first = git(origin, "rev-parse", "HEAD~1")
    assert (await syncs.sync(str(shallow), local=True, ref=first)).commit == first


async def test_a_partial_clone_is_told_to_be_one(syncs: Syncs, tmp_path: Path) -> None:
    origin = make_repository(tmp_path / "origin")
    git(origin, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--filter=blob:none", "--no-checkout", f"file://{origin}", "partial")
    error = await fails(syncs, str(tmp_path / "partial"), local=True)
    assert error.code == "repository_unreadable"
    assert "partial clone" in error.message
    assert "Enumerating" not in error.message


@pytest.mark.parametrize("characters", [8, 64])
async def test_a_repository_of_the_other_object_format(syncs: Syncs, tmp_path: Path, characters: int) -> None:
    app = make_repository(tmp_path / "app")
    await syncs.sync(str(app), local=True)
    shutil.rmtree(app)
    app.mkdir()
    git(app, "init", "-q", "-b", "main", "--object-format=sha256")
    commit = commit_files(app, {"Dockerfile": "FROM scratch\n"})
    assert (await syncs.sync(str(app), local=True, ref=commit[:characters])).commit == commit
    assert (await syncs.sync(str(app), local=True)).commit == commit


async def test_mirrors_are_kept_under_the_budget(syncs: Syncs, host: GitServer, app: Path) -> None:
    make_repository(host.root / "other")
    first = await syncs.sync(f"{host.url}/app")
    second = await syncs.sync(f"{host.url}/other")
    assert warm(syncs.state) == [f"{host.url}/other", f"{host.url}/app"]
    assert trim(syncs.state, 0) == [], "both jobs still read them"
    (first.workspace / "mirrors").unlink()
    assert trim(syncs.state, 0) == [f"{host.url}/app"]
    (second.workspace / "mirrors").unlink()
    assert trim(syncs.state, 1 << 30) == []
    assert warm(syncs.state) == [f"{host.url}/other"]


async def test_git_daemon(syncs: Syncs, tmp_path: Path) -> None:
    make_repository(tmp_path / "served" / "app")
    with git_daemon(tmp_path / "served") as url:
        assert await syncs.files(await syncs.sync(f"{url}/app")) == {"Dockerfile": b"FROM scratch\n"}
        assert (await fails(syncs, f"{url}/nothing")).code in ("repository_not_found", "credentials_needed")


async def test_local_sources_only_where_allowed(syncs: Syncs, tmp_path: Path) -> None:
    path = make_repository(tmp_path / "a dir" / "100%25")
    for repository in (str(path), f"file://{str(path).replace('%', '%25').replace(' ', '%20')}"):
        assert (await fails(syncs, repository)).code == "local_source_refused"
        assert await syncs.files(await syncs.sync(repository, local=True)) == {"Dockerfile": b"FROM scratch\n"}
    assert (await fails(syncs, "ext::sh -c touch% /tmp/x", local=True)).code == "repository_refused"


async def test_ssh_is_called_safely(syncs: Syncs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for ssh, found by PATH, that runs the other side here and notes how it was called."""
    path = make_repository(tmp_path / "far" / "app")
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/called\nfor last; do :; done\neval "$last"\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    key = tmp_path / "a key"
    key.write_text("secret")
    key.chmod(0o600)
    syncs.config |= {"ssh_key_file": str(key), "ssh_known_hosts_file": str(tmp_path / "known hosts")}
    assert await syncs.files(await syncs.sync(f"ssh://git@host.example:2222{path}"))
    called = (tmp_path / "called").read_text().splitlines()
    for words in (["-F", "/dev/null"], ["-o", "BatchMode=yes"], ["-o", "StrictHostKeyChecking=yes"], ["-i", str(key)]):
        assert any(called[at : at + 2] == words for at in range(len(called))), words
    assert called[called.index("-p") + 1] == "2222"
    assert "git@host.example" in called
    assert await syncs.files(await syncs.sync(f"git@host.example:{path}"))
    key.chmod(0o644)
    assert (await fails(syncs, f"git@host.example:{path}", ref="main")).code == "ssh_key_unsafe"


async def test_a_killed_worker_s_git_keeps_the_mirror_locked(syncs: Syncs, host: GitServer, app: Path) -> None:
    """What a predecessor's git left behind is waited for, then cleared."""
    await syncs.sync(f"{host.url}/app")
    lock = mirror_of(syncs).with_suffix(".lock")
    file = try_lock(lock)
    assert file is not None
    commit_files(app, {"more": "1"})
    (mirror_of(syncs) / "packed-refs.lock").touch()
    async with open_process(["sleep", "60"], environment=os.environ, inherited=[file], grace_seconds=0) as holder:
        os.close(file)
        assert try_lock(lock) is None, "the child holds it alone"
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                build = syncs.build(f"{host.url}/app")
                nursery.start_soon(SyncStep().run, build)
                assert not await until(lambda: build.context, seconds=0.3)
                holder.kill()
    assert "more" in await syncs.files(build)


async def test_state_files_are_private(syncs: Syncs, host: GitServer, app: Path) -> None:
    await syncs.sync(f"{host.url}/app")
    for path in (syncs.state / "mirrors", syncs.state / "git"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
