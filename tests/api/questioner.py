"""schemathesis as a process of its own: it turns a process' recursion limit and warnings to its needs.

`python -m tests.api.questioner URL [full]` asks the farm at this address what its OpenAPI description promises, with
all checks on, and prints a JSON list of what is not as it should be.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import schemathesis
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import from_schema
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished

from blacktree.notification import EVENTS
from blacktree.storage.cursor import make
from tests.api.little import TOKEN

WORD = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
PATH = st.lists(WORD, min_size=1, max_size=3).map("/".join)
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
LEAST = 100

HELD = "a-secret-that-is-there"


def settings(full: bool) -> dict[str, Any]:
    """Every phase, some thousand requests; or a bounded part of them. Always the same ones."""
    return {
        "seed": 1,
        "headers": HEADERS,
        "checks": {"enabled": True},
        "generation": {"deterministic": True, "max-examples": 20 if full else 2, "database": "none"},
        "phases": {"coverage": {"enabled": full}, "stateful": {"enabled": full}},
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
    schemathesis.openapi.format("run-secret", st.just(HELD))
    schemathesis.openapi.format("repository-pattern", st.builds("{}.test/{}/*".format, WORD, WORD))
    schemathesis.openapi.format("web-address", st.builds("https://{}.test/{}".format, WORD, PATH))
    schemathesis.openapi.format("event-pattern", st.sampled_from([*EVENTS, "*", "job.*", "deployment.*"]))
    schemathesis.openapi.format("cursor", st.builds(make, st.integers(0, 1 << 50), WORD))


def findings(url: str, full: bool) -> Iterator[str]:
    """One text each."""
    formats()
    config = SchemathesisConfig.from_dict(settings(full))
    schema = schemathesis.openapi.from_url(f"{url}/api/v1/openapi.json", config=config, headers=HEADERS)
    httpx.put(f"{url}/api/v1/secrets/run/{HELD}", json={"value": "x"}, headers=HEADERS, timeout=40).raise_for_status()
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
    print(asked, "requests", file=sys.stderr)
    if asked < LEAST:
        yield f"only {asked} requests were made"


if __name__ == "__main__":
    print(json.dumps(list(findings(sys.argv[1], "full" in sys.argv[2:]))))
