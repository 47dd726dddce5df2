"""Workers as containers: the promise on a real engine, and what they are given."""

import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from blacktree.errors import BadRequest, BlacktreeError
from blacktree.providers.scaling.containers import FARM, open_provider
from blacktree.scaling import WorkerProviderSettings
from tests.contracts.worker_provider import Opener, WorkerProviderContract
from tests.parts import engine as engines

pytestmark = pytest.mark.docker

IMAGE = "blacktree-test/idler:1"


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """An engine with an image whose command takes SIGTERM and waits: who the worker is does not matter here."""
    with engines.engine() as socket:
        base = engines.ensure_base(socket)
        dockerfile = f'FROM {base}\nENTRYPOINT ["/bin/sh", "-c", "trap exit TERM; while :; do sleep 0.1; done"]\n'
        run(socket, "build", "-q", "-t", IMAGE, "-", stdin=dockerfile)
        yield socket


def run(socket: str, *arguments: str, stdin: str = "") -> str:
    command = ["docker", "-H", f"unix://{socket}", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True).stdout


def a_setting(home: Path, engine: str, **options: Any) -> WorkerProviderSettings:
    home.mkdir(exist_ok=True)
    (home / "join-token").write_text("secret of the farm")
    return WorkerProviderSettings(
        farm_id=f"test-{secrets.token_hex(6)}",
        pool="default",
        slots=3,
        orchestrator="0.0.0.0:5051",
        join_token_file=str(home / "join-token"),
        state_directory=str(home),
        lease_seconds=30,
        options={"image": IMAGE, "engine": engine} | options,
    )


def remove_all(engine: str, farm_id: str) -> None:
    for kind, command in (("ps -aq", "rm -f"), ("volume ls -q", "volume rm -f")):
        found = run(engine, *kind.split(), "--filter", f"label={FARM}={farm_id}").split()
        if found:
            run(engine, *command.split(), *found)


@pytest.fixture
def settings(tmp_path: Path, engine: str) -> Iterator[WorkerProviderSettings]:
    made = a_setting(tmp_path / "farm", engine)
    yield made
    remove_all(engine, made.farm_id)


class TestContainers(WorkerProviderContract):
    @pytest.fixture
    def open_provider(self) -> Opener:
        return open_provider

    @pytest.fixture
    def other_farm(self, tmp_path: Path, engine: str) -> WorkerProviderSettings:
        return a_setting(tmp_path / "other", engine)

    @pytest.fixture(autouse=True)
    def socket(self, engine: str) -> None:
        self.engine = engine

    async def kill(self, worker_id: str) -> None:
        run(self.engine, "kill", worker_id)


def inspected(engine: str, name: str) -> dict[str, Any]:
    (found,) = json.loads(run(engine, "inspect", name))
    return dict(found)


async def test_what_a_worker_is_given(settings: WorkerProviderSettings, engine: str) -> None:
    name = f"auto-default-{secrets.token_hex(4)}"
    async with open_provider(settings) as provider:
        await provider.start(name)
        found = inspected(engine, name)
        shown = json.dumps(found)
        # The token is in a file of the worker's own volume, and nowhere that can be asked for.
        assert "secret of the farm" not in shown
        assert run(engine, "exec", name, "cat", "/var/lib/blacktree/join-token") == "secret of the farm"
        assert run(engine, "exec", name, "stat", "-c", "%a", "/var/lib/blacktree/join-token").strip() == "600"
        environ = dict(each.split("=", 1) for each in found["Config"]["Env"])
        assert environ["BLACKTREE_WORKER_ORCHESTRATOR"] == "127.0.0.1:5051"
        assert environ["BLACKTREE_WORKER_SLOTS"] == "3"
        # Confined, and without the engine's socket: nobody asked for it by name.
        host = found["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (True, ["ALL"], False)
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert [mount["Destination"] for mount in found["Mounts"]] == ["/var/lib/blacktree"]
        await provider.stop(name)


async def test_the_engines_socket_by_name(settings: WorkerProviderSettings, engine: str) -> None:
    name = f"auto-default-{secrets.token_hex(4)}"
    options = dict(settings.options) | {"engine_socket": engine, "memory_bytes": 64 << 20, "cpus": 0.5}
    async with open_provider(msgspec.structs.replace(settings, options=options)) as provider:
        await provider.start(name)
        found = inspected(engine, name)
        assert {mount["Destination"] for mount in found["Mounts"]} == {"/var/lib/blacktree", "/var/run/docker.sock"}
        assert (found["HostConfig"]["Memory"], found["HostConfig"]["NanoCpus"]) == (64 << 20, 500_000_000)
        await provider.stop(name)


async def test_what_was_created_and_never_started_is_found(settings: WorkerProviderSettings, engine: str) -> None:
    """As after a kill -9 between the two: neither the container nor its volume is forgotten."""
    name = f"auto-default-{secrets.token_hex(4)}"
    labels = [f"--label={key}={value}" for key, value in (
        (FARM, settings.farm_id), ("dev.blacktree.pool", "default"), ("dev.blacktree.worker", name)
    )]  # fmt: skip
    run(engine, "volume", "create", *labels, name)
    async with open_provider(settings) as provider:
        (found,) = await provider.machines()
        assert (found.id, found.running) == (name, False)
        run(engine, "create", "--name", name, *labels, IMAGE)
        (found,) = await provider.machines()
        assert (found.id, found.running) == (name, False)
        await provider.stop(name)
        assert await provider.machines() == []
    assert name not in run(engine, "volume", "ls", "-q")


async def test_a_missing_image_and_a_missing_engine_say_so(settings: WorkerProviderSettings, tmp_path: Path) -> None:
    for options, said in (
        ({"image": "nobody/has-this:1"}, "the engine has no image `nobody/has-this:1`"),
        ({"engine": str(tmp_path / "no.sock")}, "no engine answers at"),
    ):
        changed = msgspec.structs.replace(settings, options=dict(settings.options) | options)
        async with open_provider(changed) as provider:
            with pytest.raises(BlacktreeError) as caught:
                await provider.start("auto-default-00000001")
            assert said in str(caught.value)
            assert caught.value.advice


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image": ""}, "scaling.pools.default.options.image"),
        ({"network": "farm"}, "options.orchestrator: is needed here"),
        ({"mounts": ["relative:/x"]}, "is not /on/the/host:/inside"),
        ({"mounts": ["/var/run/docker.sock:/var/run/docker.sock"]}, "is named by `engine_socket`"),
        ({"engine_socket": "docker.sock"}, "options.engine_socket"),
        ({"privileged": True}, "unknown field `privileged`"),
    ],
)
def test_bad_options_are_told_at_once(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        open_provider(a_setting(tmp_path, "/var/run/docker.sock", **options))
    assert said in str(caught.value)


def test_no_container_reaches_a_unix_socket(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(a_setting(tmp_path, ""), orchestrator="unix:/run/farm.sock")
    with pytest.raises(BadRequest) as caught:
        open_provider(settings)
    assert "blacktree orchestrator" in caught.value.advice


async def test_the_last_words_of_a_worker_that_ended(settings: WorkerProviderSettings, engine: str) -> None:
    name = f"auto-default-{secrets.token_hex(4)}"
    labels = {FARM: settings.farm_id, "dev.blacktree.pool": "default", "dev.blacktree.worker": name}
    said = ["--entrypoint", "/bin/sh", IMAGE, "-c", "echo fine; echo no farm: ü >&2; exit 3"]
    run(engine, "create", "--name", name, *(f"--label={key}={value}" for key, value in labels.items()), *said)
    run(engine, "start", name)
    run(engine, "wait", name)
    async with open_provider(settings) as provider:
        (found,) = await provider.machines()
        assert not found.running
        assert found.detail.startswith("Exited (3)")
        assert found.detail.endswith(": no farm: ü")
        await provider.stop(name)
