"""The API does what its own description promises: schemathesis asks a real orchestrator's door, all checks on.

`BLACKTREE_SCHEMATHESIS=full` runs every phase, some thousand requests; else a bounded part of them, always the same.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import schemathesis
import trio
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import from_schema
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished

from blacktree.cipher import new_key
from blacktree.concurrency.island import open_island
from blacktree.storage.cursor import make
from tests.api.little import TOKEN
from tests.api.test_real_desk import real_house

FULL = os.environ.get("BLACKTREE_SCHEMATHESIS") == "full"
WORD = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
PATH = st.lists(WORD, min_size=1, max_size=3).map("/".join)

SETTINGS: dict[str, Any] = {
    "seed": 1,
    "headers": {"Authorization": f"Bearer {TOKEN}"},
    "checks": {"enabled": True},
    "generation": {"deterministic": True, "max-examples": 20 if FULL else 4, "database": "none"},
    "phases": {"coverage": {"enabled": FULL}, "stateful": {"enabled": FULL}},
    "continue-on-failure": True,
    "request-timeout": 40,
    "workers": 1,
}


def formats() -> None:
    """What is written by rules that no pattern can say."""
    addresses = st.one_of(
        st.builds("https://{}.test/{}".format, WORD, PATH), st.builds("git@{}.test:{}".format, WORD, PATH)
    )
    schemathesis.openapi.format("git-address", addresses)
    schemathesis.openapi.format("image-name", PATH)
    schemathesis.openapi.format("container-path", PATH.map("/{}".format))
    schemathesis.openapi.format("secret-name", WORD)
    schemathesis.openapi.format("repository-pattern", st.builds("{}.test/{}/*".format, WORD, WORD))
    schemathesis.openapi.format("cursor", st.builds(make, st.integers(0, 1 << 50), WORD))


def findings(url: str) -> Iterator[str]:
    """Everything that is not as it should be, one text each."""
    formats()
    schema = schemathesis.openapi.from_url(
        f"{url}/api/v1/openapi.json",
        config=SchemathesisConfig.from_dict(SETTINGS),
        headers=SETTINGS["headers"],
    )
    asked = 0
    for event in from_schema(schema).execute():
        if isinstance(event, NonFatalError):
            yield f"{event.label}: {event.value}"
        elif isinstance(event, FatalError):
            yield f"{event.exception!r}"
        elif isinstance(event, ScenarioFinished):
            asked += len(event.recorder.interactions)
            for checks in event.recorder.checks.values():
                for check in checks:
                    if check.failure_info is not None:
                        failure = check.failure_info.failure
                        told = f"{failure.title}: {failure.message}\n{check.failure_info.code_sample}"
                        yield f"{event.label}: {check.name}: {told}"
    if asked < 100:
        yield f"only {asked} requests were made"


async def test_nothing_is_found(tmp_path: Path) -> None:
    async with open_island(), real_house(tmp_path, new_key(), seconds=3000 if FULL else 55) as house:
        found = await trio.to_thread.run_sync(lambda: list(findings(f"http://{house.address}")))
        assert found == [], "\n".join(found)
