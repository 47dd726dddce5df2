"""The provider contract on a real engine, with each of its builders."""

import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from blacktree.platforms import runs
from blacktree.providers.base import BuildRequest, Provider
from tests.contracts.provider import ProviderSuite
from tests.parts.odd_registry import odd_registry
from tests.providers.docker.requests import nonce, request

pytestmark = pytest.mark.docker


class TestBuildKit(ProviderSuite):
    capabilities = frozenset({"cache", "tags"})
    builder = "buildkit"

    def succeeding(self, job_id: str) -> BuildRequest:
        return request(f"RUN echo hello {nonce()}", job_id=job_id, builder=self.builder)

    def failing(self, job_id: str) -> BuildRequest:
        return request(f"RUN echo {nonce()}; exit 7", job_id=job_id, builder=self.builder)

    def endless(self, job_id: str) -> BuildRequest:
        return request(f"RUN echo under way {nonce()}; sleep 1000", job_id=job_id, builder=self.builder)

    @contextmanager
    def destination(self) -> Iterator[str]:
        with odd_registry() as odd:
            yield f"{odd.host}/blacktree-test/app"

    @contextmanager
    def stuck(self) -> Iterator[str]:
        with odd_registry() as odd:
            odd.rule("^PATCH", "hang")
            yield f"{odd.host}/blacktree-test/app"

    def pushable(self, job_id: str) -> BuildRequest:
        # More than the socket's buffers hold, so that a hanging upload has begun to be told.
        files = {"data": secrets.token_bytes(8 << 20)}
        return request("COPY data /", files=files, base="scratch", job_id=job_id, builder=self.builder)


async def test_an_engine_says_what_it_builds(provider: Provider) -> None:
    health = await provider.check()
    assert health.platforms == runs(platform.machine())
    assert not set(health.emulated) & set(health.platforms)


class TestClassic(TestBuildKit):
    builder = "classic"
