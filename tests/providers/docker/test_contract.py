"""The provider contract on a real engine, with each of its builders."""

import pytest

from blacktree.providers.base import BuildRequest
from tests.contracts.provider import ProviderSuite
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


class TestClassic(TestBuildKit):
    builder = "classic"
