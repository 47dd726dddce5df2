"""Contexts: what is in them is what the commit has, and nothing leads out."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from blacktree.errors import StepFailed
from blacktree.services.sync.tree import GitContext
from tests.parts.git_server import GitServer, commit_files, git, make_repository
from tests.services.sync.conftest import Syncs


async def tar_of(context: object) -> dict[str, tuple[int, bytes]]:
    assert isinstance(context, GitContext)
    data = bytearray()
    async with context.tar() as chunks:
        async for chunk in chunks:
            data += chunk
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            content = archive.extractfile(member).read() if member.isreg() else member.linkname.encode()
            found[member.name] = (member.mode, content)
    return found


async def refused(syncs: Syncs, repository: str, **how: object) -> str:
    with pytest.raises(StepFailed) as caught:
        await syncs.sync(repository, local=True, **how)
    assert not caught.value.again
    return caught.value.code


async def test_attributes_change_nothing(syncs: Syncs, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        ".gitattributes": "secret export-ignore\nid.txt export-subst ident\n*.bat text eol=crlf\n",
        "Dockerfile": "FROM scratch\n",
        "secret": "kept",
        "id.txt": "$Format:%H$ $Id$\n",
        "a.bat": "one\ntwo\n",
        "empty": "",
        "big": os.urandom(300_000),
        "d" * 90 + "/" + "e" * 90: "long",
    }
    path = make_repository(tmp_path / "app", files)
    (path / "run").write_text("#!/bin/sh\n")
    (path / "run").chmod(0o755)
    (path / "link").symlink_to("big")
    git(path, "add", "-A")
    git(path, "commit", "-qm", "x")
    build = await syncs.sync(str(path), local=True)
    got = await syncs.files(build)
    expected = {name: text if isinstance(text, bytes) else text.encode() for name, text in files.items()}
    assert got == expected | {"run": b"#!/bin/sh\n", "link": b"big"}
    tarred = await tar_of(build.context)
    assert {name: content for name, (_, content) in tarred.items() if name in got} == got
    assert tarred["run"][0] == 0o755
    assert tarred["big"][0] == 0o644
    assert set(tarred) - set(got) == {"d" * 90}
    assert isinstance(build.context, GitContext)
    entries = await build.context.entries()
    assert [each.path for each in entries] == sorted((each.path for each in entries), key=lambda name: name.split("/"))
    assert {each.path: each.size for each in entries}["big"] == 300_000
    assert {each.path: each.mode for each in entries}["link"] == 0o120000


async def test_a_context_below_the_root_and_through_a_symlink(syncs: Syncs, tmp_path: Path) -> None:
    path = make_repository(tmp_path / "app", {"x": "no", "a/b/Dockerfile": "FROM scratch\n", "a/b/f": "1", "a/c": "2"})
    (path / "short").symlink_to("a/./b")
    (path / "out").symlink_to("../..")
    (path / "absolute").symlink_to("/etc")
    (path / "loop").symlink_to("loop")
    commit_files(path, {})
    for context in ("a/b", "./a/b/", "short"):
        build = await syncs.sync(str(path), local=True, context=context)
        assert await syncs.files(build) == {"Dockerfile": b"FROM scratch\n", "f": b"1"}
    assert await refused(syncs, str(path), context="out") == "outside_context"
    assert await refused(syncs, str(path), context="absolute") == "outside_context"
    assert await refused(syncs, str(path), context="loop") == "context_missing"
    assert await refused(syncs, str(path), context="nope") == "context_missing"
    assert await refused(syncs, str(path), context="x") == "context_missing"


async def test_dockerfiles(syncs: Syncs, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "a/Dockerfile": "FROM scratch\n",
        "d/x": "",
        "latin": b"FROM \xe9\n",
        "nul": b"a\0b",
    }
    path = make_repository(tmp_path / "app", files)
    (path / "inside").symlink_to("a/Dockerfile")
    (path / "a" / "up").symlink_to("../latin")
    (path / "out").symlink_to("../../etc/passwd")
    (path / "absolute").symlink_to("/etc/passwd")
    commit_files(path, {})
    for name in ("a/Dockerfile", "inside"):
        assert (await syncs.sync(str(path), local=True, dockerfile=name)).context
    expected = {
        "nope": "dockerfile_missing",
        "a/Dockerfile/x": "dockerfile_missing",
        "d": "dockerfile_is_directory",
        "latin": "dockerfile_not_text",
        "nul": "dockerfile_not_text",
        "out": "outside_context",
        "absolute": "outside_context",
    }
    for name, code in expected.items():
        assert await refused(syncs, str(path), dockerfile=name) == code, name
    assert await refused(syncs, str(path), context="a", dockerfile="up") == "outside_context"


async def test_too_many_files(syncs: Syncs, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"d/{number}": "" for number in range(50)}
    path = make_repository(tmp_path / "app", files | {"Dockerfile": "FROM x"})
    syncs.config["maximum_context_files"] = 50
    assert await refused(syncs, str(path)) == "context_too_large"


@pytest.mark.parametrize("name", [b"..", b".git", b".GIT", b"\xff"])
async def test_hostile_names_in_a_tree(syncs: Syncs, tmp_path: Path, name: bytes) -> None:
    """Written as a raw object, since git itself would not."""
    path = make_repository(tmp_path / "app")
    blob = git(path, "rev-parse", "HEAD:Dockerfile")
    entry = b"100644 " + name + b"\0" + bytes.fromhex(blob)
    good = b"100644 Dockerfile\0" + bytes.fromhex(blob)
    tree = git(path, "hash-object", "-t", "tree", "-w", "--stdin", "--literally", stdin=entry + good)
    git(path, "update-ref", "refs/heads/main", git(path, "commit-tree", "-m", "x", tree))
    assert await refused(syncs, str(path)) == "unsafe_tree"


async def test_submodules_stand_in_their_places(syncs: Syncs, host: GitServer) -> None:
    make_repository(host.root / "team" / "inner", {"in.txt": "inner"})
    lib = make_repository(host.root / "team" / "lib", {"lib.txt": "lib", "src/deep": "1"})
    git(lib, "-c", "protocol.http.allow=always", "submodule", "add", "-q", f"{host.url}/team/inner", "vendor/inner")
    commit_files(lib, {})
    app = make_repository(host.root / "team" / "app")
    git(app, "submodule", "add", "-q", f"{host.url}/team/lib", "third/lib")
    git(app, "config", "-f", ".gitmodules", "submodule.third/lib.url", "../lib")
    commit_files(app, {"z": "last"})
    build = await syncs.sync(f"{host.url}/team/app")
    expected = {
        "third/lib/lib.txt": b"lib",
        "third/lib/src/deep": b"1",
        "third/lib/vendor/inner/in.txt": b"inner",
        "z": b"last",
    }
    got = await syncs.files(build)
    assert {name: got[name] for name in expected} == expected
    tarred = await tar_of(build.context)
    assert {name: tarred[name][1] for name in expected} == expected
    commit_files(lib, {"Dockerfile": "FROM scratch\n"})
    git(app / "third" / "lib", "pull", "-q", f"{host.url}/team/lib", "main")
    commit_files(app, {})
    build = await syncs.sync(f"{host.url}/team/app", context="third/lib")
    assert set(await syncs.files(build)) >= {"Dockerfile", "lib.txt", "vendor/inner/in.txt"}
    assert "z" not in await syncs.files(build)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("file:///etc", "submodule_refused"),
        ("/etc", "submodule_refused"),
        ("ext::sh -c true", "submodule_refused"),
        ("--upload-pack=true", "submodule_refused"),
        ("-u./x", "submodule_refused"),
        ("../../../../../evil", "submodule_refused"),
        ("../gone", "repository_not_found"),
    ],
)
async def test_hostile_submodules(syncs: Syncs, host: GitServer, app: Path, url: str, code: str) -> None:
    commit = git(app, "rev-parse", "HEAD")
    (app / ".gitmodules").write_text("")
    git(app, "config", "-f", ".gitmodules", "submodule.x.path", "sub")
    git(app, "config", "-f", ".gitmodules", "submodule.x.url", url)
    git(app, "add", ".gitmodules")
    git(app, "update-index", "--add", "--cacheinfo", f"160000,{commit},sub")
    git(app, "commit", "-qm", "x")
    # Even where local sources are allowed, a repository from elsewhere may not reach for them.
    assert await refused(syncs, f"{host.url}/app") == code


async def test_a_submodule_without_a_url_is_told(syncs: Syncs, host: GitServer, app: Path) -> None:
    git(app, "update-index", "--add", "--cacheinfo", f"160000,{git(app, 'rev-parse', 'HEAD')},sub")
    git(app, "config", "-f", ".gitmodules", "submodule.y.path", "elsewhere")
    git(app, "add", ".gitmodules")
    git(app, "commit", "-qm", "x")
    build = await syncs.sync(f"{host.url}/app")
    assert syncs.heard.notices == ["submodule_skipped"]
    assert "Dockerfile" in await syncs.files(build)
