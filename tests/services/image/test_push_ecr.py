"""A push to ECR: moto for the API, a real registry with a password for the bytes, the real engine between them."""

import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from blacktree.config import WorkerConfig
from blacktree.errors import StepFailed
from blacktree.providers import open_provider
from blacktree.providers.aws.ecr import Ecr, settings_of
from blacktree.providers.base import Login, Provider, ProviderSettings
from blacktree.providers.docker.logins import reader
from blacktree.services.core.context import Build
from blacktree.services.image.push import PushStep
from blacktree.services.image.step import BuildStep
from blacktree.worker.logins import with_ecr
from tests.contracts.provider import Files, Recorder
from tests.contracts.step import a_build
from tests.parts import engine as engines
from tests.parts.moto import ACCOUNT, PASSWORD, moto_server
from tests.parts.registry import can_start_registries, registry

pytestmark = [
    pytest.mark.docker,
    pytest.mark.registry,
    pytest.mark.skipif(not can_start_registries(), reason="needs docker-registry"),
]

ECR_HOST = f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with registry({"AWS": PASSWORD}) as real:
        yield real.host


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    with engines.engine() as socket:
        settings = ProviderSettings(owner=f"tests-{secrets.token_hex(4)}", engine=socket)
        async with open_provider("docker", settings) as opened:
            yield opened
            await opened.sweep([])


MakeBuild = Callable[..., Build]


@pytest.fixture
def make(tmp_path: Path, provider: Provider, moto: str, host: str) -> MakeBuild:
    def make(repository: str, *, from_there: str = "", **keys: Any) -> Build:
        config = WorkerConfig(ecr_endpoint_url=moto, ecr_hosts={host: ECR_HOST}, **keys)
        ecr = Ecr(settings_of(config))
        base = f"{host}/{from_there}" if from_there else "scratch"
        files = Files({"Dockerfile": f"FROM {base}\nCOPY data /\n".encode(), "data": secrets.token_bytes(64)})
        return a_build(
            tmp_path,
            sink=Recorder(),
            spec={"image": f"{host}/{repository}", "tags": ["1", "2"], "push": True},
            provider=provider,
            context=files,
            config=config,
            ecr=ecr,
            login=with_ecr(ecr, reader(os.environ)),
        )

    return make


async def run(build: Build) -> None:
    with trio.fail_after(100):
        await BuildStep().run(build)
        await PushStep().run(build)


def repositories(moto: str) -> set[str]:
    import boto3

    client: Any = boto3.client("ecr", region_name="eu-central-1", endpoint_url=moto)
    return {each["repositoryName"] for each in client.describe_repositories()["repositories"]}


async def test_an_image_is_pushed_and_built_upon(make: MakeBuild, moto: str, host: str) -> None:
    """The repository is made, the bytes arrive under a login from a token, and FROM reads them by the same login."""
    build = make("team/first")
    await run(build)
    assert build.image is not None
    assert build.image.references == [f"{host}/team/first:1", f"{host}/team/first:2"]
    assert "team/first" in repositories(moto)
    async with httpx.AsyncClient(auth=("AWS", PASSWORD), timeout=40) as client:
        answer = await client.head(
            f"http://{host}/v2/team/first/manifests/2",
            headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
        )
        assert answer.headers["docker-content-digest"] == build.image.digest
    await build.provider.untag(build.image.references)
    await run(make("team/second", from_there="team/first:1"))


async def test_without_credentials_it_is_said_what_to_do(make: MakeBuild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StepFailed) as caught:
        await run(make("team/third"))
    assert (caught.value.code, caught.value.again) == ("aws_credentials_missing", False)


async def test_a_login_of_the_farms_own_serves_without_aws_credentials(
    make: MakeBuild, monkeypatch: pytest.MonkeyPatch, moto: str
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    build = make("team/fourth")
    build.login = lambda host: Login("AWS", PASSWORD)
    await run(build)
    assert isinstance(build.sink, Recorder)
    assert "repository_unchecked" in [code for code, _, _ in build.sink.notices]
    assert "team/fourth" not in repositories(moto)
