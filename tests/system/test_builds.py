"""Builds through the whole path: client, door, store, queue, worker, git, engine, and the log back."""

import base64
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.parts.build_farm import BuildFarm, Ended, nonce, open_build_farm, open_engine
from tests.parts.engine import BASE, gated, open_gate
from tests.parts.git_server import GitServer, commit_files, git, git_daemon, git_server, make_repository
from tests.parts.written import holders

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]


def dockerfile(*lines: str, base: str = BASE) -> str:
    return "\n".join([f"FROM {base}", *lines, ""])


@dataclass
class World:
    """A farm, hosts to build from, and what its operator gave it."""

    farm: BuildFarm
    root: Path
    host: GitServer
    git_url: str
    credentials: Path
    docker_config: Path

    def repository(self, *lines: str, files: dict[str, str | bytes] | None = None, name: str = "") -> Path:
        """A new repository on every host, with a Dockerfile of these lines."""
        return make_repository(
            self.root / (name or f"app-{nonce()}"), {"Dockerfile": dockerfile(*lines), **(files or {})}
        )

    def http(self, repository: Path) -> str:
        return f"{self.host.url}/{repository.name}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("builds")
    root = home / "host"
    root.mkdir()
    credentials = home / "git-credentials"
    credentials.touch(mode=0o600)
    docker_config = home / "docker"
    docker_config.mkdir()
    with open_engine() as socket, git_server(root) as host, git_daemon(root) as git_url:
        with open_build_farm(
            home,
            socket,
            BLACKTREE_WORKER_GIT_CREDENTIALS_FILE=str(credentials),
            BLACKTREE_WORKER_SWEEP_INTERVAL_SECONDS="2",
            DOCKER_CONFIG=str(docker_config),
        ) as farm:
            yield World(farm, root, host, git_url, credentials, docker_config)


async def log_of(world: World, job: dict[str, Any]) -> str:
    """The job's log as the door gives it as plain text."""
    import urllib.request

    request = urllib.request.Request(
        f"{world.farm.farm.url}/api/v1/jobs/{job['id']}/log",
        headers={"Authorization": f"Bearer {world.farm.token}"},
    )

    def fetch() -> str:
        with urllib.request.urlopen(request, timeout=40) as answer:
            text: str = answer.read().decode()
            return text

    return await trio.to_thread.run_sync(fetch)


@pytest.mark.parametrize("how", ["http", "git", "file", "path"])
async def test_every_way_to_a_repository(world: World, how: str) -> None:
    word = nonce()
    repository = world.repository(f"RUN echo {word}", "COPY a /a", files={"a": "content\n"})
    address = {
        "http": world.http(repository),
        "git": f"{world.git_url}/{repository.name}",
        "file": repository.as_uri(),
        "path": str(repository),
    }[how]
    ended = await world.farm.built(address)
    commit = git(repository, "rev-parse", "HEAD")
    assert ended.job["commit"] == commit
    assert word in ended.text
    reference = ended.job["image"]["reference"]
    assert reference == f"{repository.name}:{commit[:12]}"
    assert world.farm.image(reference)["Id"] == ended.job["image"]["id"]
    assert world.farm.docker("run", "--rm", reference, "cat", "/a") == "content"


async def test_credentials_open_a_private_host_and_nothing_shows_them(world: World) -> None:
    word = nonce()
    repository = world.repository(f"RUN echo {word}")
    password = f"pass/{nonce()}"
    with git_server(world.root) as private:
        private.login = f"robot:{password}"
        address = f"{private.url}/{repository.name}"
        refused = await world.farm.failed(address, "credentials_needed")
        assert refused.error["step"] == "sync"
        assert "git_credentials_file" in refused.error["advice"]
        assert refused.job["tries"] <= 1
        host = private.url.removeprefix("http://")
        world.credentials.write_text(f"http://robot:{password.replace('/', '%2F')}@{host}\n")
        try:
            ended = await world.farm.built(address)
        finally:
            world.credentials.write_text("")
    assert word in ended.text
    assert password not in json.dumps([ended.events, ended.job])
    label = world.farm.image(ended.job["image"]["id"])["Config"]["Labels"]["org.opencontainers.image.source"]
    assert label == address
    assert found_below(world.farm.state, password.encode()) == []


def found_below(directory: Path, value: bytes, but: tuple[Path, ...] = ()) -> list[Path]:
    """The files below that hold this value."""
    return [path for path in holders(value, directory) if path not in but]


async def test_branch_tag_and_commit(world: World) -> None:
    repository = world.repository("COPY which /which", files={"which": "first\n"})
    git(repository, "tag", "-a", "v1", "-m", "v1")
    git(repository, "branch", "old")
    first = git(repository, "rev-parse", "HEAD")
    second = commit_files(repository, {"which": "second\n"})
    address = world.http(repository)
    for ref, commit, content in [
        (None, second, "second"),
        ("main", second, "second"),
        ("refs/heads/old", first, "first"),
        ("v1", first, "first"),
        (first, first, "first"),
        (first[:10], first, "first"),
    ]:
        ended = await world.farm.built(address, ref=ref)
        assert ended.job["commit"] == commit, ref
        reference = ended.job["image"]["reference"]
        assert reference.endswith(f":{commit[:12]}")
        assert world.farm.docker("run", "--rm", reference, "cat", "/which") == content, ref


async def test_a_retried_job_builds_the_pinned_commit(world: World) -> None:
    repository = world.repository("COPY which /which", files={"which": "first\n"})
    address = world.http(repository)
    ended = await world.farm.built(address, ref="main")
    commit_files(repository, {"which": "second\n"})
    async with world.farm.client() as client:
        with trio.fail_after(60):
            again = await world.farm.follow((await client.retry(ended.job["id"]))["id"], client)
    assert again.state == "succeeded"
    assert again.job["commit"] == ended.job["commit"]
    assert again.job["retry_of"] == ended.job["id"]
    assert world.farm.docker("run", "--rm", again.job["image"]["reference"], "cat", "/which") == "first"


async def test_a_second_attempt_builds_the_commit_of_the_first(world: World) -> None:
    """The worker dies in the build, and the branch moves before it is back."""
    word = nonce()
    run = gated(word, f"echo at work {word}", ":")
    repository = world.repository(f"RUN {run}", "COPY which /which", files={"which": "first\n"})
    first = git(repository, "rev-parse", "HEAD")
    with trio.fail_after(100):
        async with world.farm.client() as client:
            job = await world.farm.submit(world.http(repository), ref="main")
            async with client.watch(job["id"]) as watch:
                async for batch in watch:
                    if any(event["type"] == "log" and "at work" in event["line"] for event in batch.events):
                        os.kill(world.farm.farm.worker_pid, signal.SIGKILL)
                        commit_files(repository, {"which": "second\n"})
                        break
            async with trio.open_nursery() as nursery:

                async def let_go() -> None:
                    while (await client.job(job["id"]))["attempt"] < 2:
                        await trio.sleep(0.05)
                    while True:
                        await trio.to_thread.run_sync(open_gate, word)
                        await trio.sleep(0.2)

                nursery.start_soon(let_go)
                ended = await world.farm.follow(job["id"], client)
                nursery.cancel_scope.cancel()
    assert (ended.state, ended.job["attempt"], ended.job["tries"]) == ("succeeded", 2, 1)
    assert ended.job["commit"] == first
    assert world.farm.docker("run", "--rm", ended.job["image"]["reference"], "cat", "/which") == "first"
    await world.farm.nothing_left_of(word)


async def test_submodules_come_along(world: World) -> None:
    library = make_repository(world.root / f"library-{nonce()}", {"lib.txt": "from the library\n"})
    repository = world.repository("COPY vendor/lib/lib.txt /lib.txt")
    git(repository, "submodule", "add", "-q", str(library), "vendor/lib")
    git(repository, "config", "-f", ".gitmodules", "submodule.vendor/lib.url", f"../{library.name}")
    pinned = git(library, "rev-parse", "HEAD")
    commit_files(repository, {})
    commit_files(library, {"lib.txt": "newer\n"})
    ended = await world.farm.built(world.http(repository))
    assert git(repository, "rev-parse", "HEAD:vendor/lib") == pinned
    assert world.farm.docker("run", "--rm", ended.job["image"]["reference"], "cat", "/lib.txt") == "from the library"


async def test_a_context_below_and_a_dockerfile_in_it(world: World) -> None:
    repository = world.repository(
        "RUN exit 1",
        files={
            "service/build/Dockerfile.prod": dockerfile("COPY . /all", "RUN ls /all > /list"),
            "service/inside": "",
            "outside": "",
        },
    )
    ended = await world.farm.built(world.http(repository), context="service", dockerfile="build/Dockerfile.prod")
    assert world.farm.docker("run", "--rm", ended.job["image"]["reference"], "cat", "/list").split() == [
        "build",
        "inside",
    ]


@pytest.mark.parametrize("builder", ["buildkit", "classic"])
async def test_a_dockerfile_behind_symlinks_inside_the_context(world: World, builder: str) -> None:
    """What `git clone` and `docker build` would follow is followed: a link to the file, and one to its directory."""
    word = nonce()
    repository = world.repository("RUN exit 1", files={"docker/real": dockerfile(f"RUN echo followed {word}")})
    (repository / "Dockerfile").unlink()
    (repository / "Dockerfile").symlink_to("docker/real")
    (repository / "short").symlink_to("docker")
    commit_files(repository, {})
    for path in ("Dockerfile", "short/real", "./docker//real"):
        ended = await world.farm.built(world.http(repository), dockerfile=path, builder=builder, no_cache=True)
        assert f"followed {word}" in ended.text, path


async def test_arguments_target_platform_labels_and_names(world: World) -> None:
    word = nonce()
    repository = make_repository(
        world.root / f"app-{nonce()}",
        {
            "Dockerfile": dockerfile(
                "ARG WORD=none",
                "RUN echo said $WORD > /word; cat /word",
                f"FROM {BASE} AS wanted",
                "ARG WORD",
                "RUN echo wanted $WORD",
                "FROM wanted",
                "RUN echo too far; exit 9",
                base=f"{BASE} AS first",
            )
        },
    )
    name = f"blacktree-test/{word}"
    ended = await world.farm.built(
        world.http(repository),
        image=name,
        tags=["1.0", "latest"],
        target="wanted",
        platform="linux/amd64",
        build_args={"WORD": word},
        labels={"org.opencontainers.image.title": "mine", "team": "a b"},
    )
    assert f"wanted {word}" in ended.text
    assert "too far" not in ended.text
    assert ended.job["image"]["reference"] == f"{name}:1.0"
    assert ended.job["image"]["references"] == [f"{name}:1.0", f"{name}:latest"]
    image = world.farm.image(f"{name}:latest")
    assert sorted(image["RepoTags"]) == [f"{name}:1.0", f"{name}:latest"]
    assert (image["Os"], image["Architecture"]) == ("linux", "amd64")
    labels = image["Config"]["Labels"]
    assert labels["team"] == "a b"
    assert labels["org.opencontainers.image.title"] == "mine"
    assert labels["org.opencontainers.image.source"] == world.http(repository)
    assert labels["org.opencontainers.image.revision"] == ended.job["commit"]
    assert labels["org.opencontainers.image.created"].endswith("Z")


@pytest.mark.parametrize("builder", ["buildkit", "classic"])
async def test_steps_have_names_cached_marks_and_seconds(world: World, builder: str) -> None:
    """The second build of a commit comes from the cache, and `no_cache` builds it anew."""
    word = nonce()
    repository = world.repository(f"RUN echo {word}; sleep 0.2", "COPY Dockerfile /x")
    address = world.http(repository)
    first = await world.farm.built(address, builder=builder)
    second = await world.farm.built(address, builder=builder)
    anew = await world.farm.built(address, builder=builder, no_cache=True)
    for ended, cached in ((first, False), (second, True), (anew, False)):
        step = ended.step(f"RUN echo {word}")
        assert (step["cached"], step["ok"], step["attempt"]) == (cached, True, 1)
        assert cached or step["seconds"] >= 0.2
        assert all(each["ok"] and each["seconds"] is not None for each in ended.job["steps"])
        assert ended.step("fetch")["step"] == "sync"
        assert ended.step("tag ")["step"] == "tag"
        finished = [event for event in ended.events if event["type"] == "step_finished"]
        assert len(finished) == len(ended.job["steps"])
    await world.farm.nothing_left_of(word)


async def test_secrets_reach_the_step_and_are_masked_in_the_log(world: World) -> None:
    value = f"s3cret-{nonce()}-{nonce()}"
    file = world.farm.state / "secrets" / "token"
    file.write_text(value)
    file.chmod(0o600)
    encoded = base64.b64encode(value.encode()).decode()
    repository = world.repository(
        f"RUN --mount=type=secret,id=token echo {nonce()}; cat /run/secrets/token; echo;"
        " base64 -w 0 /run/secrets/token;"
        " echo; head -c 9 /run/secrets/token; sleep 0.3; tail -c +10 /run/secrets/token; echo;"
        " sha256sum < /run/secrets/token; cat /run/secrets/token >&2",
        "RUN ls /run/secrets 2>/dev/null | grep token && exit 1 || echo no secret here",
    )
    ended = await world.farm.built(world.http(repository), secrets=["token"])
    assert hashlib.sha256(value.encode()).hexdigest() in ended.text
    assert "no secret here" in ended.text
    assert ended.lines.count("***") == 4, ended.lines
    told = json.dumps([ended.events, ended.job]) + await log_of(world, ended.job)
    for form in (value, encoded, encoded.rstrip("="), value[:9]):
        assert form not in told
    image = ended.job["image"]["id"]
    assert value not in json.dumps(world.farm.image(image)) + world.farm.docker("history", "--no-trunc", image)
    assert found_below(world.farm.state, value.encode(), but=(file,)) == []
    assert value not in world.farm.farm.log.read_text()


async def test_a_private_base_image_with_the_worker_s_login(world: World) -> None:
    from tests.parts.registry import can_start_registries, registry

    if not can_start_registries():
        pytest.skip("docker-registry is not installed")
    word, password = nonce(), nonce()
    with registry({"alice": password}) as hub:
        base = f"{hub.host}/team/base:1"
        login = {"auths": {hub.host: {"auth": base64.b64encode(f"alice:{password}".encode()).decode()}}}
        config = world.docker_config / "config.json"
        repository = make_repository(
            world.root / f"app-{nonce()}", {"Dockerfile": dockerfile(f"RUN echo {word}", base=base)}
        )
        address = world.http(repository)
        try:
            config.write_text(json.dumps(login))
            world.farm.docker("tag", BASE, base)
            world.farm.docker("push", "-q", base, config=world.docker_config)
            world.farm.docker("rmi", base)
            config.write_text("{}")
            refused = await world.farm.failed(address, "registry_denied", pull=True, max_attempts=1)
            assert refused.error["retryable"] is False
            config.write_text(json.dumps(login))
            ended = await world.farm.built(address, pull=True)
            assert word in ended.text
            assert password not in json.dumps([ended.events, ended.job])
        finally:
            config.unlink(missing_ok=True)
            world.farm.docker("rmi", base, code=None)


async def test_cache_from_another_image(world: World) -> None:
    """A worker that has never built it takes the layers from an image that a registry has."""
    from tests.parts.registry import can_start_registries, registry

    if not can_start_registries():
        pytest.skip("docker-registry is not installed")
    word = nonce()
    repository = world.repository(f"RUN echo {word} > /made")
    address = world.http(repository)
    inline = {"BUILDKIT_INLINE_CACHE": "1"}
    with registry() as hub:
        name = f"{hub.host}/team/{word}"
        await world.farm.built(address, image=name, tags=["1"], build_args=inline)
        world.farm.docker("push", "-q", f"{name}:1")
        world.farm.docker("rmi", f"{name}:1")
        forget_cache(world.farm.socket, word)
        cold = await world.farm.built(address, image=name, tags=["2"], build_args=inline, cache_from=[f"{name}:1"])
        assert cold.step(f"RUN echo {word}")["cached"] is True


def forget_cache(socket: str, word: str) -> None:
    """Remove the build cache of the steps that hold this word, and nobody else's."""
    import http.client
    import socket as sockets
    import urllib.parse

    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = sockets.socket(sockets.AF_UNIX)
            self.sock.connect(socket)

    def call(method: str, path: str) -> Any:
        connection = Connection("docker", timeout=30)
        try:
            connection.request(method, path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def cached() -> list[str]:
        return [each["ID"] for each in call("GET", "/system/df")["BuildCache"] or [] if word in each["Description"]]

    found = cached()
    assert found
    for each in found:
        filters = urllib.parse.quote(json.dumps({"id": [each]}))
        call("POST", f"/build/prune?all=1&filters={filters}")
    assert cached() == []


async def test_the_classic_builder_gives_every_line(world: World) -> None:
    repository = world.repository(f"RUN echo {nonce()}; seq 50000; echo to-stderr >&2")
    ended = await world.farm.built(world.http(repository), builder="classic")
    # The engine gives its two streams in no order to each other.
    assert [e["stream"] for e in ended.events if e["type"] == "log" and e["line"] == "to-stderr"] == ["stderr"]
    expected = [str(number) for number in range(1, 50_001)]
    for lines in (ended.lines, (await log_of(world, ended.job)).splitlines()):
        assert [line for line in lines if line.isdigit()] == expected


async def test_what_buildkit_clips_is_told(world: World) -> None:
    repository = world.repository(f"RUN echo {nonce()}; seq 400000")
    ended = await world.farm.built(world.http(repository), builder="buildkit")
    notices = ended.notices("output_clipped")
    clip = next((place for place, line in enumerate(ended.lines) if line.startswith("[output clipped")), None)
    if clip is None:
        assert notices == []
        assert "400000" in ended.lines
    else:
        assert len(notices) == 1
        assert "classic" in notices[0]
    # Once the engine has cut a line, it may go on at any place if the step is slow enough.
    numbers = [int(line) for line in ended.lines[:clip] if line.isdigit()]
    assert len(numbers) > 1000
    assert numbers[:-1] == list(range(1, len(numbers)))


async def test_nothing_temporary_is_left_whatever_ended_it(world: World) -> None:
    """A failure in the middle, a cancel in the middle, by both builders."""
    for builder in ("buildkit", "classic"):
        word = nonce()
        failing = world.repository(f"RUN echo {word} > /a", f"RUN sleep 9{word[1:4]} & echo {word}; exit 3")
        ended = await world.farm.build(world.http(failing), builder=builder)
        assert (ended.state, ended.error["code"], ended.error["exit_code"]) == ("failed", "run_failed", 3)
        assert any(word in line for line in ended.error["last_lines"])
        await world.farm.nothing_left_of(word)

        word = nonce()
        endless = world.repository(f"RUN echo under way {word}; setsid sleep 1000; echo {word}")
        with trio.fail_after(80):
            async with world.farm.client() as client:
                job = await world.farm.submit(world.http(endless), builder=builder)
                async with client.watch(job["id"]) as watch:
                    async for batch in watch:
                        if any(event["type"] == "log" and "under way" in event["line"] for event in batch.events):
                            break
                canceled = await client.cancel(job["id"], reason="enough")
        assert canceled["state"] == "canceled"
        await world.farm.nothing_left_of(word)


async def test_a_sweep_spares_who_runs_an_image_that_we_built(world: World) -> None:
    """A container has its image's labels; that does not make it ours."""
    address = world.http(world.repository(f"RUN echo {nonce()}"))
    ended = await world.farm.built(address, image="app", tags=[nonce()])
    user = world.farm.docker("run", "-d", "--init", ended.job["image"]["reference"], "sleep", "1000")
    try:
        # What loses its name is what the next sweep takes: when it is gone, there has been one.
        for _ in range(2):
            await world.farm.built(address, image="app", tags=["swept"])
        await world.farm.nothing_left_of()
        assert world.farm.docker("inspect", "--format", "{{.State.Running}}", user) == "true"
    finally:
        world.farm.docker("rm", "-f", user, code=None)


async def test_two_builds_at_once_keep_to_themselves(world: World) -> None:
    words = [nonce(), nonce()]
    found: dict[str, Ended] = {}

    async def one(word: str) -> None:
        repository = world.repository(f"RUN for i in 1 2 3 4 5; do echo {word}; sleep 0.1; done")
        found[word] = await world.farm.built(world.http(repository))

    async with trio.open_nursery() as nursery:
        for word in words:
            nursery.start_soon(one, word)
    for word, other in (words, words[::-1]):
        assert found[word].lines.count(word) == 5
        assert other not in found[word].text


async def test_the_command_line_builds_and_follows(world: World) -> None:
    word = nonce()
    repository = world.repository(f"RUN echo {word}")
    name = f"blacktree-test/{word}"

    def run() -> "subprocess.CompletedProcess[str]":
        label = f"{world.farm.mark}"
        return world.farm.farm.run(
            "build", str(repository), "-t", f"{name}:cli", "--label", f"blacktree-test.run={label}", "--json"
        )

    done = await trio.to_thread.run_sync(run)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["job"]["image"]["reference"] == f"{name}:cli"
    assert [event["seq"] for event in lines[:-1]] == list(range(1, len(lines)))
    assert word in done.stdout


async def test_the_metrics_of_a_farm_that_built(world: World) -> None:
    """What Prometheus' own parser reads after a real build, over HTTP."""
    repository = world.repository("RUN echo a line")
    await world.farm.built(repository)
    async with httpx.AsyncClient(timeout=40) as http:
        headers = {"authorization": f"Bearer {world.farm.token}"}
        answer = await http.get(f"{world.farm.farm.url}/metrics", headers=headers, timeout=40)
    assert answer.status_code == 200
    samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]

    def total(name: str, **labels: str) -> float:
        wanted = [s for s in samples if s.name == f"blacktree_{name}" and labels.items() <= s.labels.items()]
        return sum(s.value for s in wanted)

    assert total("job_duration_seconds_count", outcome="succeeded") >= 1
    assert all(total("step_duration_seconds_count", step=step) >= 1 for step in ("sync", "from", "run", "tag"))
    assert total("log_lines_total") >= 1
    assert total("attempts_total", outcome="succeeded") >= 1
    assert repository.name not in answer.text
