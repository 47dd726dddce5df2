"""Builds by BuildKit on a real engine: what is asked for is what is built, and what goes wrong is told."""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from blacktree.errors import EngineLost, StepFailed
from blacktree.providers.base import BuildRequest, Login, Provider
from blacktree.providers.docker.classic import ClassicBuild
from blacktree.providers.docker.engine import Engine
from blacktree.providers.docker.provider import CLASSIC_TRIES
from blacktree.providers.docker.stream import Connector
from tests.contracts.provider import Files, Recorder, new_job
from tests.parts.registry import can_start_registries, registry
from tests.providers.docker.conftest import OWNER
from tests.providers.docker.requests import dockerfile, nonce, request

pytestmark = pytest.mark.docker


async def failing(provider: Provider, asked: BuildRequest) -> StepFailed:
    with pytest.raises(StepFailed) as caught:
        await provider.build(asked, Recorder())
    assert await provider.remaining(asked.job_id) == []
    return caught.value


@pytest.mark.parametrize("builder", ["buildkit", "classic"])
async def test_a_rebuild_by_another_job_and_attempt_stays_cached(provider: Provider, builder: str) -> None:
    """Our labels name job and attempt: they may change the image's metadata, never its layers."""
    context = Files(
        {"Dockerfile": dockerfile("COPY a /a", f"RUN echo {nonce()}", "RUN echo second"), "a": nonce().encode()},
        key=nonce(),
    )
    first, second = Recorder(), Recorder()
    one = await provider.build(BuildRequest(job_id=new_job(), attempt=1, context=context, builder=builder), first)
    two = await provider.build(BuildRequest(job_id=new_job(), attempt=9, context=context, builder=builder), second)
    assert one.id != two.id
    for part in ("COPY", "RUN echo n", "RUN echo second"):
        assert first.ended(part)[1] is False
        assert second.ended(part)[1] is True


async def test_builders_say_what_failed(provider: Provider) -> None:
    error = await failing(provider, request(f"RUN echo {nonce()}", "RUN exit 42"))
    assert (error.code, error.exit_code, error.again) == ("run_failed", 42, False)
    assert "RUN exit 42" in error.step


@pytest.mark.parametrize("builder", ["buildkit", "classic"])
@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["NONSENSE here"], "dockerfile_invalid"),
        (["COPY not-there /x"], "source_missing"),
        (["FROM 127.0.0.1:1/not/there:1"], "registry_unreachable"),
    ],
)
async def test_bad_dockerfiles(provider: Provider, builder: str, lines: list[str], code: str) -> None:
    asked = request(*lines, builder=builder)
    error = await failing(provider, asked)
    assert error.code == code, error
    assert error.again is (code == "registry_unreachable")


@pytest.mark.parametrize("builder", ["buildkit", "classic"])
async def test_a_missing_dockerfile_and_one_that_is_a_directory(provider: Provider, builder: str) -> None:
    context = Files({"Dockerfile": dockerfile(), "dir/file": b""})
    for name in ("no/such", "dir"):
        asked = BuildRequest(job_id=new_job(), attempt=1, context=context, dockerfile=name, builder=builder)
        assert (await failing(provider, asked)).code == "dockerfile_missing"


@pytest.mark.parametrize("builder", ["buildkit", "classic"])
async def test_a_missing_target(provider: Provider, builder: str) -> None:
    error = await failing(provider, request("RUN true", target="nowhere", builder=builder))
    assert error.code == "target_missing", error


@pytest.mark.parametrize("builder", ["buildkit", "classic"])
async def test_what_is_asked_for_is_built(provider: Provider, engine_socket: str, builder: str) -> None:
    word = nonce()
    files = {
        "sub/Dockerfile.x": dockerfile(
            f"RUN echo {word}",
            "FROM blacktree-test/base:1 AS wanted",
            "ARG WORD",
            "COPY . /all",
            "RUN echo got $WORD; ls /all; ls -l /all/script /all/link; cat /all/link",
            "FROM wanted",
            "RUN echo too far",
        ),
        "script": b"#!/bin/sh\n",
        "link": b"script",
        "kept.md": b"",
        "other.md": b"",
        ".dockerignore": b"# comment\n*.md\n!kept.md\nsub\n",
    }
    asked = request(
        files=files,
        modes={"script": 0o100755, "link": 0o120000},
        dockerfile="sub/Dockerfile.x",
        target="wanted",
        build_args={"WORD": word},
        labels={"made.by": "test", "dev.blacktree.owner": "somebody else"},
        platform="linux/amd64",
        builder=builder,
    )
    sink = Recorder()
    image = await provider.build(asked, sink)
    text = sink.text.decode()
    assert f"got {word}" in text
    assert "too far" not in text
    assert "kept.md" in text
    assert "other.md" not in text
    assert "-rwxr-xr-x" in text
    assert "/all/link -> script" in text
    detail = await Engine(Connector(_address(engine_socket))).call("GET", f"/images/{image.id}/json")
    labels = detail["Config"]["Labels"]
    assert labels["made.by"] == "test"
    assert labels["dev.blacktree.owner"] == OWNER
    assert labels["dev.blacktree.job"] == asked.job_id
    assert not detail["RepoTags"], "a build sets no tag"


@pytest.mark.parametrize("builder", ["buildkit", "classic"])
@pytest.mark.parametrize(
    "dockerfile_path", ["./sub/Dockerfile.x", "sub//Dockerfile.x", "link", "directory/Dockerfile.x"]
)
async def test_a_dockerfile_that_is_hidden_is_found_however_it_is_spelt(
    provider: Provider, builder: str, dockerfile_path: str
) -> None:
    files = {
        "sub/Dockerfile.x": dockerfile(f"RUN echo {nonce()}", "COPY . /all", "RUN ls /all"),
        "link": b"sub/Dockerfile.x",
        "directory": b"sub",
        "kept": b"",
        ".dockerignore": b"*\n!kept\n",
    }
    modes = {"link": 0o120000, "directory": 0o120000}
    sink = Recorder()
    await provider.build(request(files=files, modes=modes, dockerfile=dockerfile_path, builder=builder), sink)
    assert b"kept" in sink.text


async def test_no_cache(provider: Provider) -> None:
    asked = request(f"RUN echo {nonce()}", no_cache=True)
    for _ in range(2):
        sink = Recorder()
        await provider.build(asked, sink)
        assert sink.ended("RUN echo")[1] is False


async def test_streams_and_bytes_come_through(provider: Provider) -> None:
    sink = Recorder()
    await provider.build(request(f"RUN echo {nonce()}; printf 'a\\000\\377b' ; echo wrong >&2"), sink)
    out = b"".join(data for (_, stream), data in sink.data.items() if stream == "stdout")
    err = b"".join(data for (_, stream), data in sink.data.items() if stream == "stderr")
    assert b"a\0\xffb" in out
    assert b"wrong\n" in err


async def test_only_changed_files_cross(provider: Provider) -> None:
    """Also one of equal size, and none when nothing changed."""
    files = {f"src/f{number}": b"one" for number in range(20)} | {"Dockerfile": dockerfile("COPY src /src", "RUN ls")}
    key = nonce()

    async def asked_for(context: Files) -> set[str]:
        await provider.build(BuildRequest(job_id=new_job(), attempt=1, context=context), Recorder())
        return {path for path in context.asked if path.startswith("src/")}

    assert len(await asked_for(Files(files, key=key))) == 20
    assert await asked_for(Files(files, key=key)) == set()
    assert await asked_for(Files(files | {"src/f7": b"two"}, key=key)) == {"src/f7"}
    sink = Recorder()
    context = Files(
        files | {"src/f7": b"six", "Dockerfile": dockerfile("COPY src /src", f"RUN cat /src/f7 # {key}")}, key=key
    )
    await provider.build(BuildRequest(job_id=new_job(), attempt=1, context=context), sink)
    assert b"six" in sink.text


async def test_a_large_context_crosses_whole(provider: Provider) -> None:
    """More than every window of HTTP/2, many files at once, empty ones among them."""
    data = secrets.token_bytes(3 << 20)
    files = {f"d{number % 7}/f{number}": secrets.token_bytes(number * 50) for number in range(300)} | {"big": data}
    sink = Recorder()
    asked = request("COPY . /all", "RUN cat /all/big | sha256sum; find /all -type f | wc -l", files=files, key=nonce())
    await provider.build(asked, sink)
    from hashlib import sha256

    assert sha256(data).hexdigest().encode() in sink.text
    assert b"302" in sink.text


async def test_secrets_reach_the_step_and_nothing_else(provider: Provider, engine_socket: str) -> None:
    value = secrets.token_hex(20).encode()
    word = nonce()
    sink = Recorder()
    asked = request(
        f"RUN --mount=type=secret,id=key echo {word}; sha256sum /run/secrets/key",
        "RUN ls /run/secrets 2>&1 || echo nothing there",
        secrets={"key": value},
    )
    image = await provider.build(asked, sink)
    from hashlib import sha256

    assert sha256(value).hexdigest().encode() in sink.text
    assert value not in sink.text
    engine = Engine(Connector(_address(engine_socket)))
    for path in (f"/images/{image.id}/json", f"/images/{image.id}/history"):
        assert value.decode() not in json.dumps(await engine.call("GET", path))
    async with engine.connector.open("GET", f"/images/{image.id}/get") as answer:
        assert value not in await answer.read()


async def test_a_secret_that_is_not_there(provider: Provider) -> None:
    error = await failing(
        provider, request(f"RUN --mount=type=secret,id=nope,required=true cat /run/secrets/nope {nonce()}")
    )
    assert error.code == "secret_missing", error


async def test_the_classic_builder_refuses_secrets(provider: Provider) -> None:
    error = await failing(provider, request("RUN true", builder="classic", secrets={"key": b"x"}))
    assert error.code == "needs_buildkit"
    error = await failing(provider, request("RUN --mount=type=secret,id=key true", builder="classic"))
    assert error.code == "needs_buildkit", error


@pytest.mark.registry
@pytest.mark.skipif(not can_start_registries(), reason="docker-registry is not installed")
@pytest.mark.parametrize("builder", ["buildkit", "classic"])
async def test_a_private_base_needs_its_login(provider: Provider, engine_socket: str, builder: str) -> None:
    engine = Engine(Connector(_address(engine_socket)))
    with registry({"alice": "wonder"}) as hub:
        base = f"{hub.host}/team/base:1"
        await _push(engine, base, {"username": "alice", "password": "wonder"})
        asked = request(f"RUN echo {nonce()}", base=base, builder=builder, pull=True)
        error = await failing(provider, asked)
        assert error.code in ("registry_denied", "image_missing"), error
        assert "wonder" not in str(error)
        hosts: list[str] = []

        def login(host: str) -> Login | None:
            hosts.append(host)
            return Login("alice", "wonder") if host == hub.host else None

        sink = Recorder()
        await provider.build(request(f"RUN echo {nonce()}", base=base, builder=builder, pull=True, login=login), sink)
        assert hub.host in hosts
        assert b"wonder" not in sink.text


@pytest.mark.registry
@pytest.mark.skipif(not can_start_registries(), reason="docker-registry is not installed")
async def test_cache_from_a_registry(provider: Provider, engine_socket: str) -> None:
    engine = Engine(Connector(_address(engine_socket)))
    with registry() as hub:
        name = f"{hub.host}/team/cache:1"
        word = nonce()
        lines = [f"RUN echo {word} > /made"]
        arguments = {"BUILDKIT_INLINE_CACHE": "1"}
        image = await provider.build(request(*lines, build_args=arguments), Recorder())
        await provider.tag(image.id, [name])
        await _push(engine, name, {}, tag=False)
        await engine.call("DELETE", f"/images/{name}", {"force": "1"})
        await _forget(engine, word)
        sink = Recorder()
        await provider.build(request(*lines, build_args=arguments, cache_from=[name]), sink)
        assert sink.ended("RUN echo")[1] is True


async def test_the_clip_of_buildkit_is_told(provider: Provider) -> None:
    sink = Recorder()
    await provider.build(request(f"RUN echo {nonce()}; seq 200000"), sink)
    codes = [code for code, _, _ in sink.notices]
    if b"199999\n" not in sink.text:
        assert codes == ["output_clipped"]
        assert "classic" in sink.notices[0][1]
        assert b"output clipped" in sink.text


async def test_the_classic_builder_keeps_every_line(provider: Provider) -> None:
    sink = Recorder()
    with trio.fail_after(100):
        await provider.build(request(f"RUN echo {nonce()}; seq 200000", builder="classic"), sink)
    lines = sink.text.split(b"\n")
    first = lines.index(b"1")
    assert lines[first : first + 200000] == [b"%d" % number for number in range(1, 200001)]


async def test_a_layer_that_was_removed_meanwhile_is_built_again(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the engine says it when another image goes, and with it a layer that this build had found in the cache."""
    take = ClassicBuild._take
    gone = ['unable to find image "sha256:8769dc"', "No such image: sha256:8769dc"]

    async def and_lose(build: ClassicBuild, message: Mapping[str, Any]) -> None:
        if gone and str(message.get("stream", "")).startswith("Step 2/"):
            message = {"error": gone.pop()}
        await take(build, message)

    monkeypatch.setattr(ClassicBuild, "_take", and_lose)
    sink = Recorder()
    asked = request(f"RUN echo {nonce()}", builder="classic")
    image = await provider.build(asked, sink)
    assert image.id.startswith("sha256:")
    assert [code for code, _, _ in sink.notices] == ["built_again"] * 2
    assert set(sink.started) == set(sink.finished) >= {"1", "1.2", "1.3", "2.3"}

    gone += ["failed to get digest sha256:8769dc: open 8769dc: no such file or directory"] * CLASSIC_TRIES
    with pytest.raises(StepFailed) as caught:
        await provider.build(asked, Recorder())
    assert (caught.value.code, caught.value.again) == ("image_gone", True)
    # The engine itself has lost nothing here and hears of the end only by the connection's.
    with trio.fail_after(40):
        while await provider.remaining(asked.job_id):
            await trio.sleep(0.05)


@pytest.mark.parametrize("builder", ["buildkit", "classic"])
async def test_a_line_of_100_mb_passes_in_pieces(provider: Provider, builder: str) -> None:
    class Counting(Recorder):
        count = 0

        async def output(self, step: str, stream: str, data: bytes) -> None:
            self.count += data.count(b"x")
            await super().output(step, stream, data[:1])
            self.longest = max(self.longest, len(data))

    sink = Counting()
    with trio.fail_after(100):
        await provider.build(
            request(f"RUN echo {nonce()}; dd if=/dev/zero bs=1M count=100 2>/dev/null | tr '\\000' x", builder=builder),
            sink,
        )
    assert sink.longest <= 1 << 20
    if builder == "classic":
        assert sink.count == 100 << 20


async def test_no_engine(tmp_path: Path) -> None:
    from blacktree.providers import open_provider
    from blacktree.providers.base import ProviderSettings

    async with open_provider("docker", ProviderSettings(owner="x", engine=str(tmp_path / "none.sock"))) as none:
        health = await none.check()
        assert "no engine answers" in health.refusal
        with pytest.raises(EngineLost):
            await none.build(request("RUN true"), Recorder())


def _address(path: str):
    from blacktree.providers.docker.address import Address

    return Address(path=path)


async def _forget(engine: Engine, word: str) -> None:
    """Prune the cache of the steps that hold this word, and nobody else's."""

    async def cached() -> list[str]:
        usage = await engine.call("GET", "/system/df")
        return [each["ID"] for each in usage["BuildCache"] or [] if word in each["Description"]]

    names = await cached()
    assert names
    for name in names:
        await engine.call("POST", "/build/prune", {"all": "1", "filters": json.dumps({"id": [name]})})
    assert await cached() == []


async def _push(engine: Engine, name: str, login: dict[str, str], *, tag: bool = True) -> None:
    """Put an image into a registry; with `tag` it is the base image under this name."""
    import base64

    image, _, version = name.rpartition(":")
    if tag:
        await engine.call("POST", "/images/blacktree-test/base:1/tag", {"repo": image, "tag": version})
    header = base64.urlsafe_b64encode(json.dumps(login).encode()).decode()
    async with engine.connector.open(
        "POST", f"/images/{image}/push", {"tag": version}, headers=[("X-Registry-Auth", header)]
    ) as answer:
        text = await answer.read()
    assert b"errorDetail" not in text, text
    if tag:
        await engine.call("DELETE", f"/images/{name}")
