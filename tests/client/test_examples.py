"""Every example of docs/client.md is run, as far as its tool is on this machine."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import trio

from blacktree.job import JobState
from tests.api.little import TOKEN, House, open_house
from tests.api.talk import talking

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
BLOCKS = [(found[1], found[2]) for found in re.finditer(r"```(python|sh|js)\n(.*?)```", TEXT, re.DOTALL)]
COMMANDS = {"python": [sys.executable, "-"], "sh": ["sh", "-eu"], "js": ["node", "--input-type=module", "-"]}
TOOLS = {"python": sys.executable, "sh": "curl", "js": "node"}


async def build(house: House) -> None:
    """Every job that waits is built at once."""
    control = house.control
    while True:
        for view in (await control.jobs([JobState.QUEUED], limit=10)).jobs:
            await control.print(view.job.id, ["a line", "another"])
            await control.finish(view.job.id)
        await trio.sleep(0.05)


@pytest.mark.timeout(150)
@pytest.mark.parametrize(("kind", "text"), BLOCKS, ids=[f"{kind}{number}" for number, (kind, _) in enumerate(BLOCKS)])
async def test_an_example_works(kind: str, text: str, tmp_path: Path) -> None:
    if shutil.which(TOOLS[kind]) is None:
        # bin/test installs it where that can be done; elsewhere its examples are not tried.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{TOOLS[kind]} is not on this machine")
    async with open_house(seconds=120) as house, trio.open_nursery() as nursery:
        await house.control.new_job()
        nursery.start_soon(build, house)
        environment = {
            **os.environ,
            "BLACKTREE_SERVER": f"http://{house.address}",
            "BLACKTREE_TOKEN": TOKEN,
            "PYTHONPATH": str(ROOT),
        }
        # The first job has its log before anything is asked about it.
        while (await house.control.counts()).get(JobState.SUCCEEDED, 0) == 0:
            await trio.sleep(0.02)
        done = await trio.run_process(
            COMMANDS[kind],
            stdin=text.encode(),
            cwd=tmp_path,
            env=environment,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout
        nursery.cancel_scope.cancel()


async def test_the_websocket_example_is_understood() -> None:
    lines = re.findall(r'^\{"jsonrpc".*$', TEXT, re.MULTILINE)
    assert len(lines) == 2
    async with open_house() as house, talking(house) as talker:
        job_id = await house.control.new_job()
        for line in lines:
            request = json.loads(line.replace("JOB", job_id))
            assert await talker.result(request["method"], request["params"])
