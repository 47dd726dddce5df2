"""Scripted containers keep the promise, too."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from blacktree.providers.scripted_containers import ScriptedContainers
from tests.contracts import containers as suites
from tests.parts.replicas import get


def commands(what: str) -> list[str]:
    return {"run": ["print", "hello", "listen"], "exit 3": ["exit", "3"]}[what]


@asynccontextmanager
async def scripted() -> AsyncIterator[ScriptedContainers]:
    async with trio.open_nursery() as nursery:
        yield ScriptedContainers(nursery, images={"app:1"})
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("suite", [suites.life_suite, suites.end_suite, suites.cancel_suite])
async def test_the_promise(suite: object) -> None:
    async with scripted() as containers:
        await suite(containers, "app:1", commands)


async def test_it_answers_on_its_ports() -> None:
    async with scripted() as containers:
        made = await containers.create(suites.a_request("app:1", [], ports=[80], env={"TEXT": "one"}))
        await containers.start(made)
        found = await containers.inspect(made)
        assert found is not None
        assert await get(found.ports[80][1]) == "one"
