"""A step and a provider from outside the package: held to their contracts, and at work in a whole farm."""

import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from blacktree.providers import open_provider
from blacktree.providers.base import BuildRequest, Provider, ProviderSettings
from blacktree.services.core.context import Build, Step
from blacktree.worker.steps import find_steps
from tests.contracts.provider import Files, ProviderSuite, Recorder
from tests.contracts.step import StepSuite, a_build
from tests.parts.build_farm import BuildFarm, nonce, open_build_farm, open_engine
from tests.parts.engine import BASE, processes_with
from tests.parts.git_server import commit_files, make_repository
from tests.parts.whole_farm import open_whole_farm

EXAMPLE = Path(__file__).parents[1] / "extension_example"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the example provider needs root")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example's directory is where an installer would have put it."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "blacktree_example"]:
        del sys.modules[name]


@pytest.mark.usefixtures("installed")
class TestPolicyStep(StepSuite):
    """The example's step, found by its entry point."""

    tells = ("started", "output")

    @staticmethod
    def make() -> Step:
        return dict(find_steps(["policy"]))["policy"]()

    async def good_build(self, directory: Path, sink: Recorder) -> Build:
        text = b"FROM --platform=linux/amd64 team/base:1.2 AS one\nFROM one\nFROM x@sha256:00\nFROM scratch\n"
        return a_build(directory, sink=sink, context=Files({"Dockerfile": text}))

    async def bad_build(self, directory: Path, sink: Recorder) -> Build:
        return a_build(directory, sink=sink, context=Files({"Dockerfile": b"FROM registry:5000/team/base\n"}))

    def result(self, build: Build) -> object:
        assert isinstance(build.sink, Recorder)
        return build.sink.text

    async def test_what_it_says(self, tmp_path: Path) -> None:
        build = await self.good_build(tmp_path, Recorder())
        await self.make().run(build)
        assert self.result(build) == b"base team/base:1.2\nbase x@sha256:00\n"


@pytest.mark.usefixtures("installed")
@needs_root
class TestDirectoryProvider(ProviderSuite):
    """The example's provider, found by its entry point."""

    capabilities = frozenset({"tags"})

    @pytest.fixture
    async def provider(self, installed: None, tmp_path: Path) -> AsyncIterator[Provider]:
        settings = ProviderSettings(owner="test", state_directory=str(tmp_path))
        async with open_provider("directory", settings) as opened:
            yield opened

    def request(self, job_id: str, command: str) -> BuildRequest:
        context = Files({"Dockerfile": f"FROM scratch\nRUN {command}\n".encode()})
        return BuildRequest(job_id=job_id, attempt=1, context=context)

    def succeeding(self, job_id: str) -> BuildRequest:
        return self.request(job_id, "echo hello")

    def failing(self, job_id: str) -> BuildRequest:
        return self.request(job_id, "exit 7")

    def endless(self, job_id: str) -> BuildRequest:
        return self.request(job_id, f"trap '' TERM; setsid sleep 987654 & echo under way; sleep 987654; : {job_id}")

    async def test_nothing_outlives_a_cancel(self, provider: Provider) -> None:
        """Also not what left its session and ignores signals: the kernel ends the whole namespace."""
        await self.test_cancel_in_mid_step_leaves_nothing(provider)
        assert processes_with("sleep\0987654") == []


def on_path() -> dict[str, str]:
    """The environment in which the example is installed."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(EXAMPLE), os.environ.get("PYTHONPATH", "")]))}


@pytest.mark.docker
async def test_a_step_from_outside_in_a_farm(tmp_path: Path) -> None:
    """Between our own steps, on a real engine: what it refuses is not built, what it lets through is."""
    with open_engine() as socket:
        word = nonce()
        pinned = make_repository(tmp_path / "pinned", {"Dockerfile": f"FROM {BASE}\nRUN echo {word}\n"})
        with open_build_farm(tmp_path, socket, BLACKTREE_WORKER_STEPS="sync,policy,build,tag", **on_path()) as farm:
            ended = await farm.built(pinned)
            assert word in ended.text
            step = ended.step("base images are pinned")
            assert (step["step"], step["ok"]) == ("policy", True)
            assert f"base {BASE}" in ended.lines
            assert [each["step"] for each in ended.job["steps"]].index("policy") == 1
            commit_files(pinned, {"Dockerfile": f"FROM {BASE.partition(':')[0]}\nRUN echo {word} again\n"})
            refused = await farm.failed(pinned, "base_not_pinned")
            assert (refused.error["step"], refused.error["retryable"]) == ("policy", False)
            assert f"{word} again" not in refused.text
            assert refused.step("base images are pinned")["ok"] is False


@needs_root
async def test_a_provider_from_outside_in_a_farm(tmp_path: Path) -> None:
    """Builds without any engine: real sources, its own images, a cancel with proof."""
    word = nonce()
    text = 'FROM scratch\nRUN echo "$GREETING from $(ls)" > made; cat made\n'
    source = make_repository(tmp_path / "app", {"Dockerfile": text, "file": ""})
    settings = {"BLACKTREE_WORKER_PROVIDER": "directory", "BLACKTREE_WORKER_STEPS": "sync,policy,build,tag"}
    with open_whole_farm(tmp_path, **settings, **on_path()) as whole:
        whole.start()
        farm = BuildFarm(whole, "")
        ended = await farm.built(source, tags=["1"], image="team/app", build_args={"GREETING": word})
        assert f"{word} from Dockerfile" in ended.text
        assert ended.job["image"]["reference"] == "team/app:1"
        assert ended.step("RUN echo")["ok"] is True
        (archive,) = whole.state.rglob("images/*.tar")
        assert ended.job["image"]["id"] == f"sha256:{archive.stem}"
        assert word.encode() in archive.read_bytes()

        failing = make_repository(tmp_path / "failing", {"Dockerfile": "FROM scratch\nRUN echo no; exit 4\n"})
        failed = await farm.build(failing)
        assert (failed.state, failed.error["code"], failed.error["exit_code"]) == ("failed", "run_failed", 4)

        word = nonce()
        endless = make_repository(tmp_path / "endless", {"Dockerfile": f"RUN echo under way; sleep 1000; : {word}\n"})
        async with farm.client() as client:
            job = await farm.submit(endless)
            async with client.watch(job["id"]) as watch:
                async for batch in watch:
                    if any(event["type"] == "log" and event["line"] == "under way" for event in batch.events):
                        break
            assert (await client.cancel(job["id"]))["state"] == "canceled"
        assert processes_with(word) == []
        assert whole.stop() == 0


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"BLACKTREE_WORKER_STEPS": "sync,polisy,build"}, "did you mean `policy`?"),
        ({"BLACKTREE_WORKER_PROVIDER": "directories"}, "did you mean `directory`?"),
    ],
)
def test_one_that_is_not_installed(tmp_path: Path, setting: dict[str, str], told: str) -> None:
    """The worker says so and ends; it does not come up and take builds."""
    token = tmp_path / "join-token"
    token.write_text("a-join-token")
    own = {
        "BLACKTREE_WORKER_STATE_DIRECTORY": str(tmp_path / "worker"),
        "BLACKTREE_WORKER_JOIN_TOKEN_FILE": str(token),
        "BLACKTREE_WORKER_ORCHESTRATOR": f"unix:{tmp_path}/farm.sock",
        "BLACKTREE_WORKER_LISTEN": f"unix:{tmp_path}/worker.sock",
    }
    with open_whole_farm(tmp_path, **own, **on_path(), **setting) as whole:
        done = whole.run("worker", code=2)
    assert told in done.stderr
