"""The engine that these tests build on, and their base image."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from blacktree.providers import open_provider
from blacktree.providers.base import Provider, ProviderSettings
from tests.parts import engine as engines

# Two runs of these tests on one engine must not sweep each other's things.
OWNER = f"tests-{os.getpid()}"


@pytest.fixture(scope="session")
def engine_socket() -> Iterator[str]:
    with engines.engine() as path:
        engines.ensure_base(path)
        yield path


@pytest.fixture(scope="session")
def base(engine_socket: str) -> str:
    return engines.ensure_base(engine_socket)


@pytest.fixture
async def provider(engine_socket: str, base: str) -> AsyncIterator[Provider]:
    settings = ProviderSettings(owner=OWNER, engine=engine_socket)
    async with open_provider("docker", settings) as opened:
        yield opened
        await opened.sweep([])
