"""The API does what its own description promises: schemathesis asks a real orchestrator's door, all checks on.

`BLACKTREE_SCHEMATHESIS=full` (and `--timeout 0`) runs every phase, some thousand requests; else a bounded part of them.
"""

import json
import os
import sys
from pathlib import Path

import pytest
import trio

from blacktree.cipher import new_key
from blacktree.concurrency.island import open_island
from tests.api.test_real_desk import real_house

FULL = os.environ.get("BLACKTREE_SCHEMATHESIS") == "full"
# How often one may come without a token is another test's matter.
NO_LIMITS = {"refusals_per_second": 0.0}


# Some eight seconds of work; a busy machine may take its time.
@pytest.mark.timeout(300)
async def test_nothing_is_found(tmp_path: Path) -> None:
    async with open_island(), real_house(tmp_path, new_key(), seconds=3000 if FULL else 280, **NO_LIMITS) as house:
        command = [sys.executable, "-m", "tests.api.questioner", f"http://{house.address}", *(["full"] if FULL else [])]
        done = await trio.run_process(command, capture_stdout=True, cwd=Path(__file__).parents[2])
        found = json.loads(done.stdout)
        assert found == [], "\n".join(found)
