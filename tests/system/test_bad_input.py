"""What should not be sent, sent through the whole path: a clear error comes back, and the farm goes on."""

import http.client
import json
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
import trio_websocket

from blacktree.errors import BadRequest
from tests.parts.build_farm import BuildFarm, nonce, open_build_farm, open_engine
from tests.parts.engine import BASE
from tests.parts.git_server import GitServer, commit_files, git, git_server, make_repository
from tests.parts.written import contents

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

STALL_SECONDS = 8  # longer than a starved machine lets a git that is well say nothing
MOST_FILES = 6_500
MOST_BYTES = 6 << 20


@dataclass
class World:
    """A farm that builds from hosts only, and a host with bad repositories."""

    farm: BuildFarm
    root: Path
    host: GitServer
    pids: set[int] = field(default_factory=set)

    def http(self, name: str | Path) -> str:
        return f"{self.host.url}/{Path(name).name}"

    def repository(self, *lines: str, files: dict[str, str | bytes] | None = None) -> str:
        """The address of a new repository with a Dockerfile of these lines."""
        text = "\n".join([f"FROM {BASE}", *lines, ""])
        return self.http(make_repository(self.root / f"app-{nonce()}", {"Dockerfile": text, **(files or {})}))

    def now_running(self) -> set[int]:
        """The processes of the farm."""
        assert self.farm.farm.process is not None
        return {self.farm.farm.process.pid, self.farm.farm.worker_pid}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("bad-input")
    root = home / "host"
    root.mkdir()
    with open_engine() as engine, git_server(root) as host:
        make_repository(root / "good", {"Dockerfile": f"FROM {BASE}\nRUN echo still good\n"})
        make_trees(root / "trees", home)
        with open_build_farm(
            home,
            engine,
            BLACKTREE_ORCHESTRATOR_ALLOW_LOCAL_SOURCES="false",
            BLACKTREE_WORKER_GIT_STALL_SECONDS=str(STALL_SECONDS),
            BLACKTREE_WORKER_MAXIMUM_CONTEXT_FILES=str(MOST_FILES),
            BLACKTREE_WORKER_MAXIMUM_REPOSITORY_BYTES=str(MOST_BYTES),
        ) as farm:
            yield World(farm, root, host)


def make_trees(path: Path, home: Path) -> None:
    """One repository with a directory for each bad tree."""
    (home / "outside").write_text("FROM scratch\n")
    make_repository(path, {"Dockerfile": f"FROM {BASE}\n", "latin/Dockerfile": b"FROM scratch\n# caf\xe9\n"})
    commit_files(path, {"directory/Dockerfile/inner": "", "nul/Dockerfile": b"FROM scratch\n# \0\n", "file": ""})
    (path / "link").mkdir()
    os.symlink("../../../outside", path / "link" / "Dockerfile")
    os.symlink("/etc", path / "etc")
    os.symlink("../..", path / "up")
    commit_files(path, {})


@pytest.fixture(autouse=True)
def _the_farm_goes_on(world: World) -> Iterator[None]:
    """After every test the same processes build something good, and nothing of the bad is left."""
    before = world.now_running()
    yield
    world.host.hang = False
    trio.run(world.farm.built, world.http("good"))
    assert world.now_running() == before, world.farm.farm.log.read_text()[-4000:]
    assert world.farm.left_of() == []


# What reaches the door


def post(world: World, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    """`POST /api/v1/jobs`: status and problem."""
    place = urlsplit(world.farm.farm.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=40)
    try:
        connection.request(
            "POST",
            "/api/v1/jobs",
            body,
            {"Authorization": f"Bearer {world.farm.token}", "Content-Type": "application/json", **headers},
        )
        with connection.getresponse() as answer:
            return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def a_spec(**more: Any) -> bytes:
    return json.dumps({"repository": "https://host.example/app.git", **more}).encode()


@pytest.mark.parametrize(
    ("body", "status", "code", "path", "told"),
    [
        (b'{"repository": ', 400, "malformed", "spec", "JSON"),
        (b'{"repository": "\xff"}', 400, "malformed", "spec", "JSON"),
        (b"[]", 422, "invalid", "spec", "object"),
        (b"{}", 422, "invalid", "spec.repository", "repository"),
        (a_spec(dockerfil="x"), 422, "invalid", "spec.dockerfil", "did you mean `dockerfile`?"),
        (a_spec(nothing_like_it=1), 422, "invalid", "spec.nothing_like_it", "known fields"),
        (a_spec(tags="latest"), 422, "invalid", "spec.tags", "Expected `array`"),
        (a_spec(build_args={"A": 1}), 422, "invalid", "spec.build_args[...]", "Expected `str`"),
        (a_spec(priority="9"), 422, "invalid", "spec.priority", "Expected `int`"),
        (a_spec(priority=10), 422, "invalid", "spec.priority", "9"),
        (a_spec(timeout_seconds=0), 422, "invalid", "spec.timeout_seconds", "0"),
        (a_spec(context="../x"), 422, "invalid", "spec.context", "inside the repository"),
        (a_spec(dockerfile="/etc/passwd"), 422, "invalid", "spec.dockerfile", "relative"),
        (a_spec(image="UPPER/case"), 422, "invalid", "spec.image", "lower-case"),
        (a_spec(secrets=["../../etc/passwd"]), 422, "invalid", "spec.secrets[0]", "match"),
        (a_spec(ref="--upload-pack=touch /tmp/owned"), 422, "invalid", "spec.ref", "must not start with `-`"),
        (a_spec(repository="--upload-pack=x"), 422, "repository_refused", "spec.repository", "must not start with `-`"),
        (a_spec(push=True), 422, "invalid", "spec.push", "registry.example/team/app"),
        (a_spec(run={"memory": 1}), 422, "invalid", "spec.run.memory", "did you mean `memory_bytes`?"),
    ],
)
async def test_a_bad_spec_is_refused_at_the_door(
    world: World, body: bytes, status: int, code: str, path: str, told: str
) -> None:
    """By HTTP and, where it is JSON at all, by the websocket: the same code, path and words."""
    found, problem = await trio.to_thread.run_sync(post, world, body)
    assert (found, problem["code"], problem["path"]) == (status, code, path), problem
    assert told in f"{problem['detail']} {problem.get('advice', '')}"
    # What is wrong with a value says itself what would be right.
    says = ("Expected", "must", "missing required field")
    assert problem.get("advice") or any(word in problem["detail"] for word in says), problem
    if status == 422 and body != b"[]":
        async with world.farm.client() as client:
            with pytest.raises(BadRequest) as caught:
                await client.submit(json.loads(body))
        assert (caught.value.code, caught.value.path) == (code, path)
        assert told in str(caught.value)


async def test_a_spec_of_10_mb_by_http(world: World) -> None:
    body = a_spec(build_args={"A": "x" * (10 << 20)})
    status, problem = await trio.to_thread.run_sync(post, world, body)
    assert (status, problem["code"]) == (413, "too_large")
    assert "1048576" in problem["detail"]
    assert problem["advice"]


async def test_a_spec_of_10_mb_by_websocket(world: World) -> None:
    place = urlsplit(world.farm.farm.url)
    text = json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "job.submit", "params": {"repository": "x", "ref": "x" * (10 << 20)}}
    )
    with trio.fail_after(40):
        stream = await trio.open_tcp_stream(place.hostname or "", place.port or 0)
        async with stream, trio.open_nursery() as nursery:
            websocket = await trio_websocket.wrap_client_stream(
                nursery,
                stream,
                place.netloc,
                "/ws",
                extra_headers=[(b"Authorization", f"Bearer {world.farm.token}".encode())],
            )
            with pytest.raises(trio_websocket.ConnectionClosed):
                await websocket.send_message(text)
                await websocket.get_message()
            nursery.cancel_scope.cancel()
    assert websocket.closed is not None
    assert websocket.closed.code == 1009
    assert "1048576" in (websocket.closed.reason or "")


# Repositories


@pytest.mark.parametrize(
    ("address", "code", "told"),
    [
        ("ext::sh -c 'touch {trap}'", "repository_refused", "run a program"),
        ("fd::17/x", "repository_refused", "run a program"),
        ("file://{root}/good", "local_source_refused", "allow_local_sources"),
        ("{root}/good", "local_source_refused", "allow_local_sources"),
        ("./good", "local_source_refused", "allow_local_sources"),
        ("ssh://-oProxyCommand=touch {trap}/y", "repository_refused", "host"),
        ("ftp://host.example/app", "repository_refused", "scheme"),
        ("https://user:word@host.example/app", "credentials_in_address", "git_credentials_file"),
    ],
)
async def test_an_address_that_is_not_allowed(world: World, address: str, code: str, told: str, tmp_path: Path) -> None:
    """It is refused before it is on record: a password in an address never gets there."""
    trap = tmp_path / "sprung"
    body = json.dumps({"repository": address.format(trap=trap, root=world.root)}).encode()
    status, problem = await trio.to_thread.run_sync(lambda: post(world, body))
    assert (status, problem["code"], problem["path"]) == (422, code, "spec.repository")
    assert told in f"{problem['detail']} {problem['advice']}"
    assert "user:word" not in json.dumps(problem)
    assert not trap.exists()


async def test_a_repository_that_leads_to_a_local_one(world: World) -> None:
    """A submodule may not reach what its repository may not, nor may a redirect to another protocol."""
    path = make_repository(world.root / f"app-{nonce()}", {"Dockerfile": f"FROM {BASE}\n"})
    git(path, "submodule", "add", "-q", str(world.root / "good"), "inner")
    commit_files(path, {})
    await world.farm.failed(world.http(path), "submodule_refused")
    with git_server(world.root) as elsewhere:
        elsewhere.redirect = f"file://{world.root}"
        ended = await world.farm.build(f"{elsewhere.url}/good", max_attempts=1)
    assert (ended.state, ended.error["step"]) == ("failed", "sync")
    assert ended.error["message"]


async def test_a_repository_that_does_not_exist(world: World) -> None:
    ended = await world.farm.failed(world.http("no-such"), "repository_not_found")
    assert (ended.error["step"], ended.error["retryable"]) == ("sync", False)


async def test_a_repository_that_needs_credentials(world: World) -> None:
    with git_server(world.root) as private:
        private.login = "somebody:else"
        ended = await world.farm.failed(f"{private.url}/good", "credentials_needed")
    assert "git_credentials_file" in ended.error["advice"]
    assert ended.error["retryable"] is False


async def test_a_host_that_hangs(world: World) -> None:
    world.host.hang = True
    ended = await world.farm.failed(world.repository(), "repository_stalled", max_attempts=1, seconds=60)
    assert ended.error["retryable"] is True


async def test_a_host_that_is_not_there_and_one_that_talks_nonsense(world: World) -> None:
    with socket.socket() as nobody:
        # Nobody listens there, and nobody else gets it.
        nobody.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{nobody.getsockname()[1]}/app"
        ended = await world.farm.failed(away, "host_unreachable", max_attempts=2)
    assert (ended.job["tries"], ended.error["retryable"]) == (2, True)
    with git_server(world.root) as odd:
        odd.garbage = True
        await world.farm.failed(f"{odd.url}/good", "repository_answer_invalid")


async def test_a_huge_repository(world: World) -> None:
    path = make_repository(world.root / f"huge-{nonce()}", {"Dockerfile": f"FROM {BASE}\n"})
    commit_files(path, {"blob": secrets.token_bytes(MOST_BYTES + (1 << 20))})
    ended = await world.farm.failed(world.http(path), "repository_too_large")
    assert "maximum_repository_bytes" in ended.error["advice"]
    kept = sum(map(len, contents(world.farm.state / "worker" / "mirrors").values()))
    assert kept < MOST_BYTES


async def test_refs_that_are_none(world: World) -> None:
    await world.farm.failed(world.http("good"), "ref_not_found", ref="no/such")
    await world.farm.failed(world.http("good"), "ref_not_found", ref="0" * 40)
    await world.farm.failed(world.http("good"), "ref_invalid", ref="main:refs/heads/x")
    empty = world.root / f"empty-{nonce()}"
    empty.mkdir()
    git(empty, "init", "-q")
    await world.farm.failed(world.http(empty), "repository_empty")


# Trees


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"dockerfile": "no/such"}, "dockerfile_missing"),
        ({"dockerfile": "dockerfile"}, "dockerfile_missing"),
        ({"context": "directory"}, "dockerfile_is_directory"),
        ({"context": "latin"}, "dockerfile_not_text"),
        ({"context": "nul"}, "dockerfile_not_text"),
        ({"context": "link"}, "outside_context"),
        ({"dockerfile": "etc/passwd"}, "outside_context"),
        ({"context": "etc"}, "outside_context"),
        ({"context": "up"}, "outside_context"),
        ({"context": "no-such"}, "context_missing"),
        ({"context": "file"}, "context_missing"),
    ],
)
async def test_a_bad_tree(world: World, spec: dict[str, str], code: str) -> None:
    ended = await world.farm.failed(world.http("trees"), code, **spec)
    assert (ended.error["step"], ended.error["retryable"], ended.job["tries"]) == ("sync", False, 0)


async def test_very_many_files(world: World) -> None:
    """What is within the limit builds; one directory more is refused by name of the limit."""
    path = make_repository(world.root / f"many-{nonce()}", {"Dockerfile": f"FROM {BASE}\n"})
    stream = [b"commit refs/heads/main\ncommitter A <a@example.org> 1700000000 +0000\ndata 1\nx\n"]
    wanted = {"Dockerfile": f"FROM {BASE}\nCOPY . /all\nRUN echo {nonce()}; find /all -type f | wc -l\n"}
    wanted |= {f"d{number % 100}/f{number}": f"{number}\n" for number in range(6_000)}
    files = {f"most/{name}": text for name, text in wanted.items()}
    files |= {f"rest/f{number}": "" for number in range(1000)} | {"Dockerfile": "FROM scratch\n"}
    for name, text in files.items():
        stream.append(f"M 100644 inline {name}\ndata {len(text)}\n{text}\n".encode())
    git(path, "fast-import", "--quiet", "--force", stdin=b"".join(stream))
    ended = await world.farm.built(world.http(path), context="most", ref="main", seconds=90)
    assert "6001" in ended.lines
    refused = await world.farm.failed(world.http(path), "context_too_large", ref="main")
    assert "maximum_context_files" in refused.error["advice"]


# Builds


async def test_a_run_that_prints_binary(world: World) -> None:
    address = world.repository(
        f"RUN echo {nonce()}; printf 'a\\000\\377\\376b\\n\\033[2Jc\\n'; head -c 100000 /dev/urandom"
    )
    ended = await world.farm.built(address)
    assert "a\0��b" in ended.lines
    assert "\x1b[2Jc" in ended.lines


async def test_a_line_of_100_mb(world: World) -> None:
    """The classic builder gives it whole: pieces of at most 64 KiB, each marked, nothing dropped."""
    address = world.repository(f"RUN echo {nonce()}; dd if=/dev/zero bs=1M count=100 2>/dev/null | tr '\\000' x")
    ended = await world.farm.built(address, builder="classic", seconds=90)
    pieces = [event for event in ended.events if event["type"] == "log" and set(event["line"]) == {"x"}]
    assert sum(len(event["line"]) for event in pieces) == 100 << 20
    assert all(len(event["line"]) <= 65536 for event in pieces)
    assert all(event.get("partial") for event in pieces[:-1])
    clipped = await world.farm.built(address, builder="buildkit", no_cache=True, seconds=90)
    whole = sum(line.count("x") for line in clipped.lines) >= 100 << 20
    assert whole or clipped.notices("output_clipped")


async def test_a_run_that_says_nothing_for_too_long(world: World) -> None:
    word = nonce()
    ended = await world.farm.build(world.repository(f"RUN sleep 1000; echo {word}"), timeout_seconds=2)
    assert ended.state == "timed_out"
    assert (ended.error["code"], ended.error["message"]) == ("timed_out", "not done after 2 s")
    assert "timeout_seconds" in ended.error["advice"]
    assert ended.job["attempt"] == 1
    assert world.farm.left_of(word) == []


async def test_dockerfiles_that_are_nonsense(world: World) -> None:
    for lines, code in (
        (["NONSENSE here"], "dockerfile_invalid"),
        (["COPY no-such /x"], "source_missing"),
        (["FROM blacktree-test/no/such:1"], "image_missing"),
    ):
        ended = await world.farm.build(world.repository(*lines), max_attempts=1)
        # Without a network the engine cannot tell a missing image from a registry that is away.
        expected = {code, "registry_unreachable"} if code == "image_missing" else {code}
        assert (ended.state, ended.error["code"] in expected) == ("failed", True), ended.error
    await world.farm.failed(world.repository(), "target_missing", target="nowhere")


async def test_a_name_that_only_the_engine_refuses(world: World) -> None:
    ended = await world.farm.failed(world.http("good"), "image_name_refused", image="0123456789abcdef" * 4)
    assert (ended.error["step"], ended.error["retryable"]) == ("tag", False)
    assert "`image`" in ended.error["advice"]


async def test_a_secret_that_is_not_there(world: World) -> None:
    ended = await world.farm.failed(world.http("good"), "secret_missing", secrets=["not-there"])
    assert "not-there" in ended.error["message"]
    open_to_all = world.farm.state / "secrets" / "open"
    open_to_all.write_text("a value that others can read")
    open_to_all.chmod(0o644)
    ended = await world.farm.failed(world.http("good"), "secret_missing", secrets=["open"])
    assert "0600" in ended.error["advice"]
    address = world.repository(f"RUN --mount=type=secret,id=nope,required=true cat /run/secrets/nope; echo {nonce()}")
    await world.farm.failed(address, "secret_missing")


async def test_a_push_to_nowhere_is_refused_by_the_command_line_too(world: World) -> None:
    done = await trio.to_thread.run_sync(lambda: world.farm.farm.run("build", world.http("good"), "--push", code=2))
    assert "needs `image`" in done.stderr
    assert len(done.stderr.splitlines()) == 1
