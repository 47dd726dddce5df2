"""The promise of `blacktree.providers.containers`: a suite that every answer to it must pass."""

import secrets
from collections.abc import Callable
from typing import Any

import pytest
import trio

from blacktree.errors import NotFound, StepFailed
from blacktree.providers.containers import Container, ContainerRequest, Containers

# A container that does this, as a request's command: (print this, then run on), (print, then exit with a code), ...
Commands = Callable[[str], list[str]]


def a_request(image: str, command: list[str], **keys: Any) -> ContainerRequest:
    name = f"blacktree-contract-{secrets.token_hex(6)}"
    return ContainerRequest(**({"name": name, "image": image, "command": command, "memory_bytes": 32 << 20} | keys))


async def life_suite(containers: Containers, image: str, commands: Commands) -> None:
    """Made, started, run in, read, stopped, removed; each step as often as one likes."""
    assert await containers.has(image)
    request = a_request(image, commands("run"), labels={"a": "b"})
    made = await containers.create(request)
    try:
        found = await containers.inspect(made)
        assert found is not None
        assert (found.state, found.exit_code, found.labels["a"]) == ("created", None, "b")
        with pytest.raises(StepFailed) as caught:
            await containers.create(request)
        assert caught.value.code == "name_taken"
        await containers.start(made)
        await containers.start(made)
        assert await _listed(containers, made) == "running"
        assert (await containers.run(made, ["true"], 60)).exit_code == 0
        assert (await containers.run(made, ["false"], 60)).exit_code == 1
        assert (await containers.run(made, ["sleep", "60"], 0.1)).exit_code is None
        async with containers.logs(made, None) as reader:
            [first, *_] = await reader.next()
        assert (first.stream, first.data) == ("stdout", b"hello\n")
        async with containers.logs(made, first.position) as reader:
            with trio.move_on_after(0.2):
                assert await reader.next() == []
            assert not reader.missed
        await containers.stop(made, 5)
        await containers.stop(made, 5)
        ended = await containers.wait(made)
        assert ended.state == "ended"
        assert ended.exit_code not in (None, 0)
        assert not ended.oom_killed
        async with containers.logs(made, first.position) as reader:
            assert await reader.next() == []
    finally:
        await containers.remove(made)
    await containers.remove(made)
    await containers.stop(made, 1)
    assert await containers.inspect(made) is None
    assert await _listed(containers, made) == ""
    for gone in (containers.wait(made), containers.start(made), containers.run(made, ["true"], 1)):
        with pytest.raises(NotFound):
            await gone


async def end_suite(containers: Containers, image: str, commands: Commands) -> None:
    """What ends by itself says how."""
    made = await containers.create(a_request(image, commands("exit 3")))
    try:
        await containers.start(made)
        ended: Container = await containers.wait(made)
        assert (ended.state, ended.exit_code, ended.oom_killed) == ("ended", 3, False)
        assert await containers.wait(made) == ended
        with pytest.raises(NotFound):
            await containers.run(made, ["true"], 1)
    finally:
        await containers.remove(made)
    with pytest.raises(StepFailed) as caught:
        await containers.create(a_request("blacktree-test/no-such-image:1", commands("run")))
    assert caught.value.code == "image_missing"
    assert not caught.value.again


async def cancel_suite(containers: Containers, image: str, commands: Commands) -> None:
    """Cancelled at any moment every call leaves at once, and what there is is listed and can be removed."""
    made = await containers.create(a_request(image, commands("run")))
    try:
        await containers.start(made)
        for call in (
            lambda: containers.wait(made),
            lambda: containers.run(made, ["sleep", "5"], 5),
            lambda: containers.inspect(made),
            lambda: containers.listed(),
        ):
            for seconds in (0.0, 0.05):
                with trio.fail_after(40), trio.move_on_after(seconds):
                    await call()
        with trio.fail_after(40), trio.move_on_after(0.05):
            async with containers.logs(made, None) as reader:
                while await reader.next():
                    pass
        assert await _listed(containers, made) == "running"
        with trio.move_on_after(0.05):
            await containers.stop(made, 5)
        await containers.stop(made, 5)
    finally:
        await containers.remove(made)
    for seconds in (0.0, 0.01, 0.05):
        request = a_request(image, commands("run"), labels={"contract": secrets.token_hex(8)})
        with trio.move_on_after(seconds):
            await containers.start(await containers.create(request))
        # What was asked for may come a moment later.
        await trio.sleep(0.5)
        mark = request.labels["contract"]
        with trio.fail_after(40):
            while left := [each.id for each in await containers.listed() if each.labels.get("contract") == mark]:
                for each in left:
                    await containers.remove(each)


async def _listed(containers: Containers, name: str) -> str:
    return next((each.state for each in await containers.listed() if each.id == name), "")
