"""Pushes by the real engine to registries that are real, and to one that misbehaves."""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from blacktree.errors import StepFailed
from blacktree.providers.base import BuiltImage, Login, Provider
from blacktree.providers.docker.push import encoded
from blacktree.providers.registry.client import open_registry
from blacktree.providers.registry.reference import is_push_tag, parse_reference, push_tag
from tests.contracts.provider import Recorder, new_job
from tests.parts.odd_registry import OddRegistry, error_body, odd_registry
from tests.parts.registry import can_start_registries, registry
from tests.providers.docker.requests import request

pytestmark = pytest.mark.docker


@pytest.fixture
def odd() -> Iterator[OddRegistry]:
    with odd_registry() as made:
        yield made


@asynccontextmanager
async def an_image(provider: Provider, name: str, size: int = 4096) -> AsyncIterator[BuiltImage]:
    """One of a single layer that no registry has, under this name."""
    made = request("COPY data /", files={"data": secrets.token_bytes(size)}, base="scratch")
    image = await provider.build(made, Recorder())
    await provider.tag(image.id, [name])
    try:
        yield image
    finally:
        await provider.untag([name])


async def fails(provider: Provider, name: str, login: Login | None = None) -> StepFailed:
    sink = Recorder()
    with trio.fail_after(100):
        async with an_image(provider, name):
            with pytest.raises(StepFailed) as caught:
                await provider.push(name, login, sink)
    assert set(sink.started) <= set(sink.finished)
    return caught.value


@pytest.mark.registry
@pytest.mark.skipif(not can_start_registries(), reason="needs docker-registry")
async def test_a_registry_with_a_password(provider: Provider) -> None:
    login = Login("robot", "pass/word:1")
    with registry({"robot": login.password}) as real:
        name = f"{real.host}/team/app:1"
        async with an_image(provider, name):
            digest = await provider.push(name, login, Recorder())
        async with open_registry(parse_reference(name), lambda host: login) as client:
            assert await client.head("1") == digest
        assert (await fails(provider, name)).code == "registry_unauthorized"
        assert (await fails(provider, name, Login("robot", "wrong"))).code == "registry_unauthorized"


@pytest.mark.parametrize(
    ("pattern", "status", "body", "code", "again"),
    [
        ("^POST", 403, error_body("DENIED", "not yours"), "registry_denied", False),
        ("^POST", 404, error_body("NAME_UNKNOWN", "no such repository"), "repository_missing", False),
        ("^PUT .*/manifests/", 429, error_body("TOOMANYREQUESTS", "slow down"), "registry_limited", True),
        ("^PUT .*/manifests/", 500, b"", "registry_failed", True),
        ("^PUT .*/manifests/", 400, error_body("TAG_INVALID", "the tag is immutable"), "tag_immutable", False),
    ],
)
async def test_refusals_in_mid_stream_are_told_apart(
    provider: Provider, odd: OddRegistry, pattern: str, status: int, body: bytes, code: str, again: bool
) -> None:
    odd.rule(pattern, status=status, body=body, headers={"Content-Type": "application/json"})
    error = await fails(provider, f"{odd.host}/team/app:1")
    assert (error.code, error.again) == (code, again), error
    assert error.advice
    assert odd.host in error.message


async def test_garbage(provider: Provider, odd: OddRegistry) -> None:
    odd.rule(".", "garbage")
    assert (await fails(provider, f"{odd.host}/team/app:1")).code == "registry_garbage"


async def test_nobody_listens(provider: Provider) -> None:
    error = await fails(provider, "127.0.0.1:1/team/app:1")
    assert (error.code, error.again) == ("registry_unreachable", True)


async def test_a_sweep_takes_the_names_of_a_push_that_was_killed(provider: Provider) -> None:
    alive, dead = new_job(), new_job()
    names = []
    for job in (alive, dead):
        made = request("COPY data /", files={"data": secrets.token_bytes(64)}, base="scratch", job_id=job)
        image = await provider.build(made, Recorder())
        names.append(f"127.0.0.1:1/team/app:{push_tag(job, 1)}")
        await provider.tag(image.id, [names[-1], f"blacktree-test/kept:{job}"])
    removed = await provider.sweep([alive])
    assert f"name {names[1]}" in removed
    assert f"name {names[0]}" not in removed
    assert f"name {names[0]}" in await provider.sweep([])
    await provider.untag([f"blacktree-test/kept:{job}" for job in (alive, dead)])


def test_the_header_of_a_login() -> None:
    import base64
    import json

    def read(text: str) -> object:
        return json.loads(base64.urlsafe_b64decode(text))

    assert read(encoded(None, "r.example")) == {}
    told = read(encoded(Login("a", "b"), "r.example"))
    assert told == {"username": "a", "password": "b", "serveraddress": "r.example"}
    told = read(encoded(Login("<token>", "t"), "docker.io"))
    assert told == {"identitytoken": "t", "serveraddress": "https://index.docker.io/v1/"}


def test_tags_of_pushes() -> None:
    long = push_tag("j" * 64, 2**62, "a" * 30 + "/" + "b" * 30)
    assert len(long) <= 128
    for tag, job in ((push_tag("a-1", 2), "a-1"), (push_tag("j", 1, "linux/arm64/v8"), "j"), (long, "j" * 64)):
        assert is_push_tag(tag, job)
        assert not is_push_tag(tag, "other")
    assert not is_push_tag("latest", "")
    assert not is_push_tag("bt-a-1-2", "a") or is_push_tag("bt-a-1-2", "a-1")
