"""Containers on the real engine."""

import pytest

from blacktree.providers.base import Provider
from blacktree.providers.containers import ContainerProvider, registry_host
from blacktree.providers.docker.containers import since_of
from tests.contracts import containers as suites

pytestmark = pytest.mark.docker


def commands(what: str) -> list[str]:
    return {"run": ["/bin/sh", "-c", "echo hello; sleep 600"], "exit 3": ["/bin/sh", "-c", "exit 3"]}[what]


@pytest.mark.parametrize("suite", [suites.life_suite, suites.end_suite, suites.cancel_suite])
async def test_the_promise(suite: object, provider: Provider, base: str) -> None:
    assert isinstance(provider, ContainerProvider)
    await suite(provider.containers, base, commands)


async def test_sweep_and_prune_leave_replicas_alone(provider: Provider, base: str) -> None:
    assert isinstance(provider, ContainerProvider)
    containers = provider.containers
    made = await containers.create(suites.a_request(base, commands("run")))
    try:
        await containers.start(made)
        assert await provider.sweep([]) == []
        assert [each.state for each in await containers.listed() if each.id == made] == ["running"]
    finally:
        await containers.remove(made)


@pytest.mark.parametrize(
    ("image", "host"),
    [
        ("app", "docker.io"),
        ("team/app:1", "docker.io"),
        ("localhost/app", "localhost"),
        ("127.0.0.1:5000/app@sha256:00", "127.0.0.1:5000"),
        ("registry.example/team/app", "registry.example"),
        ("index.docker.io/team/app", "docker.io"),
    ],
)
def test_the_registry_that_a_name_names(image: str, host: str) -> None:
    assert registry_host(image) == host


def test_stamps_as_the_engine_wants_them() -> None:
    assert since_of("2026-11-21T13:00:00.123456789Z") == "1795266000.123456789"
    assert since_of("1970-01-01T00:00:01Z") == "1.000000000"
