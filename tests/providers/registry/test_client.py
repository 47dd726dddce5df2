"""The registry client against a registry that misbehaves, and a real one."""

import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from blacktree.errors import StepFailed
from blacktree.providers.base import Login
from blacktree.providers.registry.client import MAX_BODY_BYTES, Registry, open_registry
from blacktree.providers.registry.manifest import DOCKER_MANIFEST, Manifest, Platform, index_of
from blacktree.providers.registry.reference import Reference, parse_reference
from tests.parts.odd_registry import OddRegistry, error_body, odd_registry
from tests.parts.registry import can_start_registries, registry

TAG = "1"


@pytest.fixture
def odd() -> Iterator[OddRegistry]:
    with odd_registry() as made:
        yield made


def a_manifest() -> Manifest:
    """An index of nothing: what every registry takes without any blob."""
    return index_of([])


@asynccontextmanager
async def client(
    host: str, login: Callable[[str], Login | None] = lambda host: None, *, seconds: float = 30.0
) -> AsyncIterator[Registry]:
    with trio.fail_after(40):
        async with open_registry(parse_reference(f"{host}/team/app:{TAG}"), login, seconds=seconds) as opened:
            yield opened


def login(host: str) -> Login | None:
    return Login("robot", "pass/word:1")


async def fails(host: str, code: str, *, again: bool, seconds: float = 30.0, **more: object) -> StepFailed:
    """A PUT that fails with this code, and with advice."""
    async with client(host, seconds=seconds, **more) as opened:
        with pytest.raises(StepFailed) as caught:
            await opened.put(TAG, a_manifest())
    assert (caught.value.code, caught.value.again) == (code, again), caught.value
    assert caught.value.advice
    return caught.value


async def test_a_tag_is_put_read_and_taken_away(odd: OddRegistry) -> None:
    manifest = a_manifest()
    async with client(odd.host) as opened:
        assert await opened.head(TAG) is None
        await opened.put(TAG, manifest)
        assert await opened.head(TAG) == manifest.digest
        assert await opened.manifest(manifest.digest) == manifest
        assert await opened.delete_tag(TAG)
        assert await opened.head(TAG) is None
        assert await opened.manifest(manifest.digest) == manifest


@pytest.mark.registry
@pytest.mark.skipif(not can_start_registries(), reason="needs docker-registry")
@pytest.mark.parametrize("users", [None, {"robot": "pass/word:1"}])
async def test_a_real_registry(users: dict[str, str] | None) -> None:
    with registry(users) as real:
        manifest = a_manifest()
        async with client(real.host, login if users else lambda host: None) as opened:
            await opened.put(TAG, manifest)
            assert await opened.head(TAG) == manifest.digest
            assert await opened.manifest(manifest.digest) == manifest
            # This one takes no tags away, and says so.
            assert await opened.delete_tag(TAG) is False
            assert await opened.head(TAG) == manifest.digest
        if users:
            await fails(real.host, "registry_unauthorized", again=False)
            await fails(
                real.host, "registry_unauthorized", again=False, login=lambda host: Login("robot", "something else")
            )


@pytest.mark.parametrize("tokens", [False, True])
async def test_logins(odd: OddRegistry, tokens: bool) -> None:
    odd.login, odd.tokens = "robot:pass/word:1", tokens
    async with client(odd.host, login) as opened:
        await opened.put(TAG, a_manifest())
    assert odd.authorizations[0] == "", "the first question bears no login"
    await fails(odd.host, "registry_unauthorized", again=False)
    await fails(odd.host, "registry_unauthorized", again=False, login=lambda host: Login("robot", "wrong"))


async def test_a_token_that_expires_is_renewed(odd: OddRegistry) -> None:
    odd.login, odd.tokens, odd.uses = "robot:pass/word:1", True, 1
    async with client(odd.host, login) as opened:
        for tag in ("a", "b", "c"):
            await opened.put(tag, a_manifest())
    assert odd.asked_tokens == 3
    assert sorted(odd.tags) == ["team/app:a", "team/app:b", "team/app:c"]


@pytest.mark.parametrize(
    ("status", "body", "code", "again"),
    [
        (401, b"", "registry_unauthorized", False),
        (403, error_body("DENIED", "not yours"), "registry_denied", False),
        (404, error_body("NAME_UNKNOWN", "no such repository"), "repository_missing", False),
        (429, error_body("TOOMANYREQUESTS", "slow down"), "registry_limited", True),
        (500, b"<html>oops</html>", "registry_failed", True),
        (503, b"", "registry_failed", True),
        (400, error_body("TAG_INVALID", "the tag is immutable"), "tag_immutable", False),
        (409, b"", "tag_immutable", False),
        (400, error_body("MANIFEST_INVALID", "what is this"), "registry_refused", False),
        (404, b"<html>nginx</html>", "registry_garbage", False),
    ],
)
async def test_refusals_are_told_apart(odd: OddRegistry, status: int, body: bytes, code: str, again: bool) -> None:
    odd.rule("^PUT", status=status, body=body)
    async with client(odd.host) as opened:
        with pytest.raises(StepFailed) as caught:
            await opened.put(TAG, a_manifest())
    assert (caught.value.code, caught.value.again) == (code, again)
    assert odd.host in caught.value.message


async def test_when_to_come_again(odd: OddRegistry) -> None:
    odd.rule("^PUT", status=429, headers={"Retry-After": "7"})
    assert (await fails(odd.host, "registry_limited", again=True)).retry_after_seconds == 7.0


@pytest.mark.parametrize("where", ["^GET /v2/$", "^PUT"])
@pytest.mark.parametrize(
    ("how", "code", "again"),
    [
        ("hang", "registry_slow", True),
        ("garbage", "registry_garbage", False),
        ("cut", "registry_unreachable", True),
        ("refuse", "registry_unreachable", True),
    ],
)
async def test_broken_connections_are_told_apart(
    odd: OddRegistry, where: str, how: str, code: str, again: bool
) -> None:
    odd.rule(where, how)
    await fails(odd.host, code, again=again, seconds=0.3 if how == "hang" else 30.0)


async def test_nobody_listens() -> None:
    await fails("127.0.0.1:1", "registry_unreachable", again=True)


async def test_a_host_that_does_not_exist() -> None:
    await fails("no-such-registry.invalid", "registry_unreachable", again=True)


async def test_a_listener_that_says_nothing() -> None:
    """Half open: the connection is accepted by the kernel, and that is all."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await fails(f"127.0.0.1:{listener.getsockname()[1]}", "registry_slow", again=True, seconds=0.3)


async def test_a_drip_is_bounded(odd: OddRegistry) -> None:
    """Every byte comes in time, the answer never does."""
    stop = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not stop.wait(0.02):
                connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,), daemon=True)
        thread.start()
        try:
            await fails(f"127.0.0.1:{listener.getsockname()[1]}", "registry_slow", again=True, seconds=0.3)
        finally:
            stop.set()
            thread.join(5)


async def test_an_endless_answer_is_bounded(odd: OddRegistry) -> None:
    odd.rule("^GET /v2/$", status=200, body=b" " * (MAX_BODY_BYTES + 1))
    await fails(odd.host, "registry_garbage", again=False)


async def test_no_registry_at_all(odd: OddRegistry) -> None:
    odd.rule("^GET /v2/$", status=404, body=b"<html>not here</html>")
    await fails(odd.host, "registry_garbage", again=False)


async def test_what_does_not_bear_its_digest_is_not_believed(odd: OddRegistry) -> None:
    manifest = a_manifest()
    async with client(odd.host) as opened:
        await opened.put(TAG, manifest)
        odd.manifests[manifest.digest] = (DOCKER_MANIFEST, b"{}")
        with pytest.raises(StepFailed) as caught:
            await opened.manifest(manifest.digest)
    assert caught.value.code == "registry_garbage"


async def test_a_login_goes_to_no_other_host(odd: OddRegistry) -> None:
    odd.login = "robot:pass/word:1"
    with odd_registry() as other:
        blob = b"{}"
        digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        other.blobs[digest] = blob
        odd.rule("^PUT", status=307, headers={"Location": f"http://{other.host}/v2/team/app/manifests/1"})
        async with client(odd.host, login) as opened:
            with pytest.raises(StepFailed) as caught:
                await opened.put(TAG, a_manifest())
            assert caught.value.code == "registry_redirect"
            assert other.requests == []
            # A blob's bytes may lie elsewhere; the login stays here.
            odd.rule("^GET .*/blobs/", status=307, headers={"Location": f"http://{other.host}/v2/x/blobs/{digest}"})
            assert await opened.blob(digest) == blob
            assert other.authorizations == [""]
            odd.rule("^GET .*/manifests/", status=302, headers={"Location": f"http://{other.host}/v2/x/manifests/1"})
            with pytest.raises(StepFailed) as caught:
                await opened.manifest(digest)
            assert caught.value.code == "registry_redirect"


async def test_a_token_server_elsewhere_without_tls_gets_no_login(odd: OddRegistry) -> None:
    challenge = 'Bearer realm="http://registry.example/token",service="x"'
    odd.rule("^GET /v2/$", status=401, headers={"WWW-Authenticate": challenge})
    await fails(odd.host, "registry_garbage", again=False, login=login)


@pytest.mark.parametrize("realm", ["https://[", "https://a]b/token", "//", "file:///etc/passwd"])
async def test_an_address_that_is_none_is_garbage(odd: OddRegistry, realm: str) -> None:
    odd.rule("^GET /v2/$", status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'})
    await fails(odd.host, "registry_garbage", again=False, login=login)


async def test_a_redirect_to_no_address_is_refused(odd: OddRegistry) -> None:
    odd.rule("^(PUT|GET|HEAD) .*/manifests/", status=302, headers={"Location": "https://[x"})
    await fails(odd.host, "registry_redirect", again=False)


async def test_plain_http_only_where_it_is_allowed() -> None:
    from blacktree.providers.registry.reference import may_be_plain

    assert may_be_plain("127.0.0.1:5000", ())
    assert may_be_plain("localhost", ())
    assert may_be_plain("[::1]:5000", ())
    assert not may_be_plain("registry.example:5000", ())
    assert not may_be_plain("127.0.0.1.example", ())
    assert may_be_plain("registry.example:5000", ("registry.example:5000",))
    assert may_be_plain("registry.example:5000", ("registry.example",))
    assert not may_be_plain("registry.example:5001", ("registry.example:5000",))


async def test_cancelled_at_once(odd: OddRegistry) -> None:
    odd.rule("^PUT", "hang")
    async with client(odd.host, seconds=1000) as opened:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.put, TAG, a_manifest())
            while not odd.count("^PUT"):
                await trio.sleep(0.005)
            nursery.cancel_scope.cancel()


def test_references() -> None:
    assert parse_reference("team/app:1") == Reference("docker.io", "team/app", "1")
    assert parse_reference("app").server == "registry-1.docker.io"
    assert parse_reference("docker.io/app:x") == Reference("docker.io", "library/app", "x")
    assert parse_reference("r.example:5000/a/b/c") == Reference("r.example:5000", "a/b/c", "latest")
    assert parse_reference("[::1]:5000/a:t") == Reference("[::1]:5000", "a", "t")


def test_an_index_is_the_same_for_the_same_parts() -> None:
    one = Manifest(media_type=DOCKER_MANIFEST, body=b"{}", digest="sha256:1")
    parts = [(one, Platform(os="linux", architecture="amd64")), (one, Platform(os="linux", architecture="arm64"))]
    assert index_of(parts) == index_of(parts)
    assert b'"variant"' not in index_of(parts).body
