"""The farm's own secrets in real builds: mounts and registry logins, and not a trace of them on any disk or log."""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from blacktree.client.secrets import put_login, put_secret, remove_secret
from tests.parts.build_farm import BuildFarm, nonce, open_build_farm, open_engine
from tests.parts.engine import BASE
from tests.parts.git_server import make_repository
from tests.parts.registry import can_start_registries, registry
from tests.parts.written import contents

pytestmark = [pytest.mark.docker, pytest.mark.timeout(150)]


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildFarm]:
    home = tmp_path_factory.mktemp("secrets")
    (home / "docker").mkdir()
    with open_engine() as socket:
        settings = {
            "XDG_CONFIG_HOME": str(home / "config"),
            "DOCKER_CONFIG": str(home / "docker"),
            "BLACKTREE_LOG_LEVEL": "debug",
            "BLACKTREE_WORKER_STEPS": "sync,build,tag,push",
        }
        with open_build_farm(home, socket, **settings) as farm:
            yield farm


def holders(farm: BuildFarm, *values: str) -> list[str]:
    """Files below the farm's home that hold one of these, in clear or in base64: state, logs, sockets' directories."""
    forms = [form for value in values for form in (value.encode(), base64.b64encode(value.encode()).rstrip(b"="))]
    home = farm.farm.log.parent
    found = contents(home).items()
    return [str(path) for path, content in found if any(form in content for form in forms)]


def repository(path: Path, *lines: str, base: str = BASE, files: dict[str, str | bytes] | None = None) -> Path:
    return make_repository(path / nonce(), {"Dockerfile": "\n".join([f"FROM {base}", *lines, ""]), **(files or {})})


async def test_a_secret_mount_from_the_vault(farm: BuildFarm, tmp_path: Path) -> None:
    value, file_value = f"s3cret-{nonce()}-{nonce()}", f"in-a-file-{nonce()}"
    for name in ("token", "only-a-file"):
        path = farm.state / "secrets" / name
        path.write_text(file_value)
        path.chmod(0o600)
    app = repository(
        tmp_path,
        f"RUN --mount=type=secret,id=token --mount=type=secret,id=only-a-file echo {nonce()}; cat /run/secrets/token;"
        " echo; base64 -w 0 /run/secrets/token; echo; sha256sum < /run/secrets/token;"
        " sha256sum < /run/secrets/only-a-file",
    )
    async with farm.client() as client:
        await put_secret(client, "build", "token", value.encode(), repositories=[f"{tmp_path}/*"])
    ended = await farm.built(app, secrets=["token", "only-a-file"])
    # The farm's own value goes before the file of that name.
    for each in (value, file_value):
        assert hashlib.sha256(each.encode()).hexdigest() in ended.text
    assert ended.lines.count("***") == 2, ended.lines
    assert value not in json.dumps([ended.events, ended.job])
    image = ended.job["image"]["id"]
    assert value not in json.dumps(farm.image(image)) + farm.docker("history", "--no-trunc", image)
    assert holders(farm, value) == []
    async with farm.client() as client:
        await put_secret(client, "build", "token", value.encode(), repositories=["example.test/**"])
    refused = await farm.failed(app, "secret_not_permitted", secrets=["token"])
    assert "`token`" in refused.error["message"]
    assert value not in json.dumps([refused.events, refused.job])
    async with farm.client() as client:
        await remove_secret(client, "build", "token")
    for name in ("token", "only-a-file"):
        (farm.state / "secrets" / name).unlink()


@pytest.mark.skipif(not can_start_registries(), reason="docker-registry is not installed")
async def test_a_private_base_image_with_the_farm_s_login(farm: BuildFarm, tmp_path: Path) -> None:
    password = f"pw-{nonce()}-{nonce()}"
    header = base64.b64encode(f"alice:{password}".encode()).decode()
    config = tmp_path / "push"
    config.mkdir()
    with registry({"alice": password}) as hub:
        base = f"{hub.host}/team/base:1"
        (config / "config.json").write_text(json.dumps({"auths": {hub.host: {"auth": header}}}))
        # A build that prints what it should not know; in two pieces, so that the repository does not hold it either.
        half = len(header) // 2
        files: dict[str, str | bytes] = {"one": header[:half], "two": header[half:], "word": password[::-1]}
        app = repository(
            tmp_path,
            "COPY one two word /",
            f"RUN echo {nonce()}; cat /one /two; echo; echo -n 'said: '; rev < /word",
            base=base,
            files=files,
        )
        try:
            farm.docker("tag", BASE, base)
            farm.docker("push", "-q", base, config=config)
            farm.docker("rmi", base)
            await farm.failed(app, "registry_denied", pull=True, max_attempts=1)
            async with farm.client() as client:
                await put_login(client, hub.host, "alice", password, repositories=["example.test/**"])
            # Not for this repository.
            await farm.failed(app, "registry_denied", pull=True, max_attempts=1)
            async with farm.client() as client:
                await put_login(client, hub.host, "alice", password, repositories=[f"{tmp_path}/*"])
            ended = await farm.built(app, pull=True)
            assert "***" in ended.lines
            assert "said: ***" in ended.lines, ended.lines
            assert holders(farm, password, f"alice:{password}") == []
            for builder in ("buildkit", "classic"):
                farm.docker("rmi", base, code=None)
                await farm.built(app, pull=True, no_cache=True, builder=builder)
            async with farm.client() as client:
                await put_login(client, hub.host, "alice", "another", repositories=[f"{tmp_path}/*"])
            await farm.failed(app, "registry_denied", pull=True, max_attempts=1)
            assert holders(farm, password, f"alice:{password}") == []
        finally:
            farm.docker("rmi", base, code=None)


@pytest.mark.skipif(not can_start_registries(), reason="docker-registry is not installed")
async def test_a_push_with_the_farm_s_login(farm: BuildFarm, tmp_path: Path) -> None:
    password = f"pw-{nonce()}-{nonce()}"
    app = repository(tmp_path, f"RUN echo {nonce()}")
    with registry({"alice": password}) as hub:
        image = f"{hub.host}/team/{nonce()}"
        refused = await farm.build(app, image=image, push=True, max_attempts=1)
        assert refused.state == "failed"
        async with farm.client() as client:
            await put_login(client, hub.host, "alice", password, repositories=[f"{tmp_path}/*"])
        ended = await farm.built(app, image=image, tags=["1"], push=True)
        assert ended.job["image"]["digest"].startswith("sha256:")
        assert password not in json.dumps([ended.events, ended.job, refused.events, refused.job])
        assert holders(farm, password, f"alice:{password}") == []
