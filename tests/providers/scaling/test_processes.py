"""Workers as processes: the promise, what they are given, and how they are found."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import trio

from blacktree.errors import BadRequest
from blacktree.providers.scaling import kin, open_worker_provider
from blacktree.providers.scaling.options import on_this_machine
from blacktree.providers.scaling.processes import open_provider as open_processes
from blacktree.scaling import WorkerProviderSettings
from tests.contracts.worker_provider import Opener, WorkerProviderContract


def a_setting(home: Path, **changes: object) -> WorkerProviderSettings:
    """Workers that come up, and never find an orchestrator."""
    home.mkdir(exist_ok=True)
    (home / "join-token").write_text("secret of the farm")
    settings = WorkerProviderSettings(
        farm_id=home.name,
        pool="default",
        slots=1,
        orchestrator="127.0.0.1:1",
        join_token_file=str(home / "join-token"),
        state_directory=str(home),
        lease_seconds=30,
        options={
            "environment": {
                "BLACKTREE_WORKER_PROVIDER": "scripted",
                "BLACKTREE_WORKER_STEPS": "build",
                "BLACKTREE_WORKER_SHUTDOWN_GRACE_SECONDS": "0",
            }
        },
    )
    return msgspec.structs.replace(settings, **changes)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[WorkerProviderSettings]:
    home = tmp_path / "farm"
    yield a_setting(home)
    for pid in kin.find(str(home), "default").values():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class TestProcesses(WorkerProviderContract):
    @pytest.fixture
    def open_provider(self) -> Opener:
        return open_processes

    @pytest.fixture
    def other_farm(self, tmp_path: Path) -> WorkerProviderSettings:
        return a_setting(tmp_path / "other")

    @pytest.fixture(autouse=True)
    def home(self, settings: WorkerProviderSettings) -> None:
        self.state = settings.state_directory

    async def kill(self, worker_id: str) -> None:
        os.kill(kin.find(self.state, "default")[worker_id], signal.SIGKILL)


async def test_neither_arguments_nor_environment_hold_a_secret(
    settings: WorkerProviderSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLACKTREE_ORCHESTRATOR_BROKER_URL", "amqp://u:hunter2@rabbit/")
    monkeypatch.setenv("MQ_URL", "amqp://u:hunter2@rabbit/")
    async with open_processes(settings) as provider:
        await provider.start("auto-default-00000001")
        (pid,) = kin.find(settings.state_directory, "default").values()
        shown = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
        assert b"BLACKTREE_WORKER_POOL=default" in shown
        assert b"hunter2" not in shown
        assert b"secret of the farm" not in shown
        await provider.stop("auto-default-00000001")


async def test_leaving_the_context_leaves_no_process(settings: WorkerProviderSettings) -> None:
    async with open_processes(settings) as provider:
        await provider.start("auto-default-00000001")
        await provider.start("auto-default-00000002")
    assert kin.find(settings.state_directory, "default") == {}


async def test_a_crash_between_start_and_record_loses_nothing(settings: WorkerProviderSettings) -> None:
    """The starter is killed at once after its fork; whoever comes next finds the process."""
    program = (
        "import sys, trio, msgspec, os, signal\n"
        "from blacktree.scaling import WorkerProviderSettings\n"
        "from blacktree.providers.scaling.processes import open_provider\n"
        "settings = msgspec.json.decode(sys.argv[1], type=WorkerProviderSettings)\n"
        "async def main():\n"
        "    async with open_provider(settings) as provider:\n"
        "        await provider.start('auto-default-00000001')\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "trio.run(main)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, msgspec.json.encode(settings)], check=False)
    assert ended.returncode == -signal.SIGKILL
    async with open_processes(settings) as provider:
        (found,) = await provider.machines()
        assert (found.id, found.running) == ("auto-default-00000001", True)
        await provider.stop(found.id)
        assert await provider.machines() == []


async def test_one_that_will_not_end_is_killed(settings: WorkerProviderSettings, nursery: trio.Nursery) -> None:
    words = kin.arguments("auto-default-00000001", settings.state_directory)
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    )
    stubborn = subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.PIPE)
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    stubborn.stdout.close()
    await kin.end(stubborn.pid, settings.state_directory, "auto-default-00000001", 0.1)
    assert stubborn.wait(40) == -signal.SIGKILL


def test_a_process_of_another_kind_is_none_of_ours(settings: WorkerProviderSettings) -> None:
    assert kin.told_id(os.getpid(), settings.state_directory) == ""
    assert kin.belongs("auto-a-b-00000001", "a-b")
    assert not kin.belongs("auto-a-b-00000001", "a")
    assert not kin.belongs("worker-1", "default")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"imagee": "x"}, "scaling.pools.default.options.imagee: unknown field"),
        ({"environment": {"BLACKTREE_WORKER_ID": "me"}}, "the scaler sets this variable itself"),
        ({"config_file": "/nowhere.toml"}, "cannot read /nowhere.toml"),
    ],
)
def test_bad_options_are_told_at_once(settings: WorkerProviderSettings, options: dict[str, object], said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        open_processes(msgspec.structs.replace(settings, options=options))
    assert said in str(caught.value)


def test_an_unknown_provider_names_the_known_ones(settings: WorkerProviderSettings) -> None:
    with pytest.raises(BadRequest) as caught:
        open_worker_provider("process", settings)
    assert "known are: containers, processes" in str(caught.value)
    assert "did you mean `processes`?" in str(caught.value)


@pytest.mark.parametrize(
    ("bound", "seen"),
    [("0.0.0.0:5051", "127.0.0.1:5051"), ("[::]:5051", "[::1]:5051"), ("unix:/a/b", "unix:/a/b")],
)
def test_addresses_as_seen_from_here(bound: str, seen: str) -> None:
    assert on_this_machine(bound) == seen


async def test_a_provider_of_another_package_is_found(
    settings: WorkerProviderSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its entry point, as an installed package has it."""
    info = tmp_path / "clouds-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: clouds\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[blacktree.worker_providers]\nclouds = clouds:open_provider\n")
    (tmp_path / "clouds.py").write_text("from blacktree.providers.scaling.processes import open_provider\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    async with open_worker_provider("clouds", settings) as provider:
        assert await provider.machines() == []
