"""The step `push` with the real engine: a registry of our own that misbehaves, and a real one."""

import json
import secrets
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from blacktree.config import WorkerConfig
from blacktree.errors import StepFailed
from blacktree.providers import open_provider
from blacktree.providers.base import Login, Provider, ProviderSettings
from blacktree.services.core.context import Build, Grant, Pushed
from blacktree.services.image import patience
from blacktree.services.image.push import PushStep
from blacktree.services.image.step import BuildStep
from tests.contracts.provider import Files, Recorder
from tests.contracts.step import a_build
from tests.parts import engine as engines
from tests.parts.odd_registry import OddRegistry, error_body, odd_registry
from tests.parts.registry import can_start_registries, registry

pytestmark = pytest.mark.docker

SCRATCH = b"FROM scratch\nCOPY data /\n"


@pytest.fixture(scope="session")
def engine_socket() -> Iterator[str]:
    with engines.engine() as path:
        yield path


@pytest.fixture
async def provider(engine_socket: str) -> AsyncIterator[Provider]:
    settings = ProviderSettings(owner=f"tests-{secrets.token_hex(4)}", engine=engine_socket)
    async with open_provider("docker", settings) as opened:
        yield opened
        await opened.sweep([])


@pytest.fixture
def odd() -> Iterator[OddRegistry]:
    with odd_registry() as made:
        yield made


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_SECONDS", 0.02)


def files(size: int = 64, dockerfile: bytes = SCRATCH) -> Files:
    return Files({"Dockerfile": dockerfile, "data": secrets.token_bytes(size)})


def a_push(directory: Path, provider: Provider, host: str, *, sink: Recorder | None = None, **more: Any) -> Build:
    """A job that pushes two tags to this host."""
    spec = {"image": f"{host}/team/app", "tags": ["1", "latest"], "push": True} | more.pop("spec", {})
    config = WorkerConfig(registry_timeout_seconds=more.pop("seconds", 30.0), push_stall_seconds=60.0)
    values: dict[str, Any] = {"provider": provider, "context": files(), "config": config} | more
    return a_build(directory, sink=sink or Recorder(), spec=spec, **values)


async def run(build: Build) -> None:
    """Build and push; the engine keeps nothing of it."""
    with trio.fail_after(100):
        await BuildStep().run(build)
        try:
            await PushStep().run(build)
        finally:
            with trio.CancelScope(shield=True):
                assert await build.provider.remaining(build.job_id) == []


async def fails(build: Build, code: str) -> StepFailed:
    with pytest.raises(StepFailed) as caught:
        await run(build)
    assert caught.value.code == code, caught.value
    sink = build.sink
    assert isinstance(sink, Recorder)
    assert sink.finished["push"][3] is False
    assert set(sink.started) <= set(sink.finished)
    return caught.value


async def test_every_tag_is_pushed_and_nothing_else_stays(tmp_path: Path, provider: Provider, odd: OddRegistry) -> None:
    build = a_push(tmp_path, provider, odd.host)
    await run(build)
    assert build.image is not None
    name = f"{odd.host}/team/app"
    assert build.image.references == [f"{name}:1", f"{name}:latest"]
    assert build.image.reference == f"{name}:1"
    # The tag of the attempt's own came first, and is gone.
    assert [tag for tag, _ in odd.puts] == [f"bt-{build.job_id}-1", "1", "latest"]
    assert odd.tags == {"team/app:1": build.image.digest, "team/app:latest": build.image.digest}


@pytest.mark.registry
@pytest.mark.skipif(not can_start_registries(), reason="needs docker-registry")
async def test_a_real_registry_with_a_password(tmp_path: Path, provider: Provider) -> None:
    asked: list[str] = []

    def login(host: str) -> Login | None:
        asked.append(host)
        return Login("robot", "pass/word:1")

    with registry({"robot": "pass/word:1"}) as real:
        build = a_push(tmp_path, provider, real.host, login=login)
        await run(build)
        assert build.image is not None
        assert build.image.digest is not None
        assert set(asked) == {real.host}
        refused = a_push(tmp_path, provider, real.host)
        assert "docs/registries.md" in (await fails(refused, "registry_unauthorized")).advice


async def test_no_push_without_being_asked_or_trusted(tmp_path: Path, provider: Provider, odd: OddRegistry) -> None:
    await run(a_push(tmp_path, provider, odd.host, spec={"push": False}))
    sink = Recorder()
    build = a_push(tmp_path, provider, odd.host, trusted=False, sink=sink, cache_from=[f"{odd.host}/team/app:1"])
    await run(build)
    assert build.image is None
    assert [code for code, _, _ in sink.notices] == ["push_refused"]
    assert odd.requests == []


@pytest.mark.parametrize(
    ("rule", "code", "puts"),
    [
        ({"pattern": "^PUT .*/manifests/latest", "status": 429, "headers": {"Retry-After": "0"}, "times": 2}, "", 3),
        ({"pattern": "^PUT .*/manifests/latest", "status": 500, "times": 2}, "", 3),
        ({"pattern": "^PUT .*/manifests/latest", "how": "refuse", "times": 1}, "", 2),
        ({"pattern": "^PUT .*/manifests/latest", "how": "cut", "times": 1}, "", 2),
        ({"pattern": "^PUT .*/manifests/latest", "how": "hang", "times": 1}, "", 2),
        ({"pattern": "^PUT .*/manifests/latest", "status": 500}, "registry_failed", patience.TRIES),
        (
            {"pattern": "^PUT .*/manifests/latest", "status": 429, "headers": {"Retry-After": "600"}},
            "registry_limited",
            1,
        ),
        ({"pattern": "^PUT .*/manifests/latest", "status": 403}, "registry_denied", 1),
        ({"pattern": "^PUT .*/manifests/latest", "how": "garbage"}, "registry_garbage", 1),
        ({"pattern": "^PUT .*/manifests/latest", "status": 401, "times": 1}, "", 2),
    ],
)
async def test_what_may_help_is_tried_again(
    tmp_path: Path, provider: Provider, odd: OddRegistry, rule: dict[str, Any], code: str, puts: int
) -> None:
    rule = dict(rule)
    seconds = 4.0 if rule.get("how") == "hang" else 30.0
    odd.rule(rule.pop("pattern"), rule.pop("how", "answer"), **rule)
    sink = Recorder()
    build = a_push(tmp_path, provider, odd.host, sink=sink, seconds=seconds)
    if code:
        await fails(build, code)
        assert "team/app:latest" not in odd.tags
    else:
        await run(build)
        assert "team/app:latest" in odd.tags
        assert {code for code, _, _ in sink.notices} <= {"push_again"}
    assert odd.count("^PUT .*/manifests/latest") == puts
    # What had been moved is not moved again, and the tag of the attempt's own does not stay.
    assert odd.count("^PUT .*/manifests/1$") == 1
    assert not any(":bt-" in tag for tag in odd.tags)


async def test_the_push_of_the_layers_is_tried_again_too(tmp_path: Path, provider: Provider, odd: OddRegistry) -> None:
    odd.rule("^PUT .*/manifests/bt-", status=503, times=1)
    sink = Recorder()
    await run(a_push(tmp_path, provider, odd.host, sink=sink))
    assert [code for code, _, _ in sink.notices] == ["push_again"]
    assert "team/app:latest" in odd.tags


async def test_a_login_that_expires_in_mid_push_is_asked_for_anew(
    tmp_path: Path, provider: Provider, odd: OddRegistry
) -> None:
    """As with clouds whose passwords live for hours: the second answer of the helper is the good one."""
    odd.login = "robot:new"
    answers = iter(["old"])
    await run(a_push(tmp_path, provider, odd.host, login=lambda host: Login("robot", next(answers, "new"))))
    assert "team/app:latest" in odd.tags


@pytest.mark.parametrize("uses", [1, 4])
async def test_tokens_that_expire_in_mid_push(tmp_path: Path, provider: Provider, odd: OddRegistry, uses: int) -> None:
    """The engine renews none that it holds for good: where it fails, it is sent again."""
    odd.login, odd.tokens, odd.uses = "robot:pass", True, 1_000
    odd.rule("^PUT .*/manifests/bt-", status=401, body=error_body("UNAUTHORIZED", "token expired"), times=1)
    await run(a_push(tmp_path, provider, odd.host, login=lambda host: Login("robot", "pass")))
    assert "team/app:latest" in odd.tags


async def test_a_tag_that_is_immutable(tmp_path: Path, provider: Provider, odd: OddRegistry) -> None:
    odd.immutable = True
    await run(a_push(tmp_path, provider, odd.host))
    before = dict(odd.tags)
    error = await fails(a_push(tmp_path, provider, odd.host), "tag_immutable")
    assert error.again is False
    assert "new tag" in error.advice
    assert odd.tags == before


async def test_cancelled_while_layers_are_pushed(tmp_path: Path, provider: Provider, odd: OddRegistry) -> None:
    odd.rule("^PATCH", "hang")
    sink = Recorder()
    build = a_push(tmp_path, provider, odd.host, sink=sink, context=files(8 << 20))
    with trio.fail_after(100):
        await BuildStep().run(build)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(PushStep().run, build)
            await sink.until_step("push layer")
            nursery.cancel_scope.cancel()
    assert odd.tags == {}
    assert odd.puts == []
    assert sink.finished["push"][3] is False


async def test_withheld_names_are_told_and_not_moved(tmp_path: Path, provider: Provider, odd: OddRegistry) -> None:
    latest = f"{odd.host}/team/app:latest"
    asked: list[list[str]] = []

    @asynccontextmanager
    async def publishing(references: Collection[str] = ()) -> AsyncIterator[Grant]:
        asked.append(list(references))
        yield Grant(withheld=frozenset({latest}))

    sink = Recorder()
    build = a_push(tmp_path, provider, odd.host, sink=sink, publishing=publishing)
    await run(build)
    assert asked == [[f"{odd.host}/team/app:1", latest]]
    assert build.image is not None
    assert (build.image.references, build.image.withheld) == ([f"{odd.host}/team/app:1"], [latest])
    assert [(code, latest in text) for code, text, _ in sink.notices] == [("tag_withheld", True)]
    assert list(odd.tags) == ["team/app:1"]


async def test_the_grant_is_asked_for_while_the_engine_ends_its_push(
    tmp_path: Path, provider: Provider, odd: OddRegistry
) -> None:
    expected: list[tuple[list[str], list[str]]] = []
    build = a_push(tmp_path, provider, odd.host)
    build.expect_publishing = lambda names: expected.append((list(names), [tag for tag, _ in odd.puts]))
    await run(build)
    # Not a manifest is there yet, and the names are all that will be moved.
    assert expected == [([f"{odd.host}/team/app:1", f"{odd.host}/team/app:latest"], [])]


async def test_all_withheld(tmp_path: Path, provider: Provider, odd: OddRegistry) -> None:
    @asynccontextmanager
    async def publishing(references: Collection[str] = ()) -> AsyncIterator[Grant]:
        yield Grant(withheld=frozenset(references))

    build = a_push(tmp_path, provider, odd.host, publishing=publishing)
    await run(build)
    assert build.image is not None
    assert build.image.reference == f"{odd.host}/team/app@{build.image.digest}"
    assert odd.tags == {}


async def test_a_grant_that_is_over_moves_nothing(tmp_path: Path, provider: Provider, odd: OddRegistry) -> None:
    """The process stood still between the grant and the first PUT: no timer has run, and yet."""

    def over() -> None:
        raise StepFailed("over", code="publish_expired", again=True)

    @asynccontextmanager
    async def publishing(references: Collection[str] = ()) -> AsyncIterator[Grant]:
        yield Grant(check=over)

    await fails(a_push(tmp_path, provider, odd.host, publishing=publishing), "publish_expired")
    assert odd.tags == {}


# Several platforms

BOTH = {"platforms": ["linux/amd64", "linux/arm64"]}


async def test_several_platforms_are_one_name(tmp_path: Path, provider: Provider, odd: OddRegistry) -> None:
    sink = Recorder()
    build = a_push(tmp_path, provider, odd.host, spec=BOTH, sink=sink)
    await run(build)
    assert build.image is not None
    media, body = odd.manifests[odd.tags["team/app:latest"]]
    assert odd.tags == {"team/app:1": build.image.digest, "team/app:latest": build.image.digest}
    index = json.loads(body)
    assert index["mediaType"] == media
    found = {f"{each['platform']['os']}/{each['platform']['architecture']}" for each in index["manifests"]}
    assert found == {"linux/amd64", "linux/arm64"}
    for each in index["manifests"]:
        own_media, own_body = odd.manifests[each["digest"]]
        assert (each["mediaType"], each["size"]) == (own_media, len(own_body))
    assert any(name.startswith("[linux/arm64]") for name in sink.started.values())


@pytest.mark.registry
@pytest.mark.skipif(not can_start_registries(), reason="needs docker-registry")
async def test_several_platforms_in_a_real_registry(tmp_path: Path, provider: Provider) -> None:
    with registry() as real:
        build = a_push(tmp_path, provider, real.host, spec=BOTH)
        await run(build)
        assert build.image is not None
        assert len(build.image.references) == 2


async def test_parts_that_others_have_pushed_become_one_name(
    tmp_path: Path, provider: Provider, odd: OddRegistry
) -> None:
    parts = []
    for platform in BOTH["platforms"]:
        tag = f"bt-{platform.replace('/', '-')}-part"
        part = a_push(tmp_path, provider, odd.host, spec={"platform": platform, "tags": [tag]})
        part.part = True
        await run(part)
        assert part.image is not None
        parts.append(Pushed(platform=platform, digest=str(part.image.digest), tag=tag))
    whole = a_push(tmp_path, provider, odd.host, spec=BOTH)
    whole.parts = parts
    await PushStep().run(whole)
    assert whole.image is not None
    assert set(odd.tags.values()) == {whole.image.digest}
    _, body = odd.manifests[str(whole.image.digest)]
    assert [each["digest"] for each in json.loads(body)["manifests"]] == [part.digest for part in parts]
    # What one is not built for is not put into the list, and the parts stay for whoever tries again.
    wrong = a_push(tmp_path, provider, odd.host, spec=BOTH | {"tags": ["wrong"]})
    wrong.parts = [Pushed(platform="linux/s390x", digest=parts[0].digest, tag="1")]
    tags = dict(odd.tags)
    with pytest.raises(StepFailed) as caught:
        await PushStep().run(wrong)
    assert caught.value.code == "platform_mismatch"
    assert odd.tags == tags


async def test_one_platform_that_fails_moves_nothing(tmp_path: Path, provider: Provider, odd: OddRegistry) -> None:
    """Its base has no such platform: the image says so itself."""
    own = a_push(tmp_path, provider, odd.host, spec={"tags": ["base"], "platform": "linux/amd64"})
    await run(own)
    odd.puts.clear()
    odd.rule("^PUT .*/manifests/bt-.*arm64", status=403)
    await fails(a_push(tmp_path, provider, odd.host, spec=BOTH), "registry_denied")
    assert [tag for tag, _ in odd.puts if not tag.startswith("bt-")] == []
    assert list(odd.tags) == ["team/app:base"]


async def test_a_platform_that_cannot_be_built_moves_nothing(
    tmp_path: Path, provider: Provider, odd: OddRegistry, engine_socket: str
) -> None:
    base = engines.ensure_base(engine_socket)
    broken = files(dockerfile=f"FROM {base}\nRUN test $(uname -m) = none\n".encode())
    build = a_push(tmp_path, provider, odd.host, spec=BOTH, context=broken)
    with trio.fail_after(100), pytest.raises(StepFailed) as caught:
        await BuildStep().run(build)
    assert caught.value.message.startswith("linux/amd64: ")
    assert odd.requests == []


# The shared cache


async def test_layers_come_from_what_was_pushed_last(
    tmp_path: Path, provider: Provider, odd: OddRegistry, engine_socket: str
) -> None:
    base = engines.ensure_base(engine_socket)
    context = files(dockerfile=f"FROM {base}\nRUN echo {secrets.token_hex(8)}\n".encode())
    first = a_push(tmp_path, provider, odd.host, context=context)
    await run(first)
    body = odd.manifests[odd.tags["team/app:latest"]][1]
    config = json.loads(odd.blobs[json.loads(body)["config"]["digest"]])
    assert "moby.buildkit.cache.v0" in config
    sink = Recorder()
    again = a_push(tmp_path, provider, odd.host, context=context, sink=sink, cache_from=[f"{odd.host}/team/app:latest"])
    await run(again)
    assert any("importing cache manifest" in name for name in sink.started.values())
    assert all(ok for _, _, _, ok in sink.finished.values())


@pytest.mark.parametrize("how", ["missing", "hang", "off", "no_cache"])
async def test_a_cache_that_is_not_there_is_no_error(
    tmp_path: Path, provider: Provider, odd: OddRegistry, how: str
) -> None:
    config = WorkerConfig(registry_timeout_seconds=0.3 if how == "hang" else 30.0, registry_cache=how != "off")
    if how == "hang":
        odd.rule("manifests/gone", "hang")
    sink = Recorder()
    build = a_push(
        tmp_path,
        provider,
        odd.host,
        sink=sink,
        config=config,
        spec={"no_cache": how == "no_cache"},
        cache_from=[f"{odd.host}/team/app:gone"],
    )
    await BuildStep().run(build)
    assert not any("importing cache" in name for name in sink.started.values())
    assert [code for code, _, _ in sink.notices] == (["cache_not_used"] if how == "hang" else [])
    assert odd.count("gone") == (how in ("missing", "hang"))
