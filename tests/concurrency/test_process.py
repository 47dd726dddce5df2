"""Children end with their block, and so does what they started."""

import os
from pathlib import Path

import pytest
import trio

from blacktree.concurrency.process import open_process, run_process
from blacktree.errors import TooLarge

ENVIRONMENT = {"PATH": os.environ["PATH"]}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_output_input_and_code() -> None:
    seen = bytearray()

    async def take(data: bytes) -> None:
        seen.extend(data)

    with trio.fail_after(40):
        done = await run_process(
            ["sh", "-c", "cat; echo oops >&2; exit 3"],
            environment=ENVIRONMENT,
            stdin=b"x" * 500_000,
            on_stderr=take,
        )
    assert (done.code, done.stdout, done.stderr, bytes(seen)) == (3, b"x" * 500_000, b"oops\n", b"oops\n")


async def test_the_environment_is_the_given_one() -> None:
    done = await run_process(["/usr/bin/env"], environment={"ONLY": "this"})
    assert done.stdout == b"ONLY=this\n"


async def test_too_much_output_ends_it() -> None:
    with trio.fail_after(40), pytest.raises(TooLarge):
        await run_process(["yes"], environment=ENVIRONMENT, maximum_stdout=10_000)


async def test_a_program_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        await run_process(["/no/such/program"], environment=ENVIRONMENT)


async def test_an_error_of_the_listener_comes_out_as_it_is() -> None:
    async def refuse(data: bytes) -> None:
        raise TooLarge("enough")

    with trio.fail_after(40), pytest.raises(TooLarge, match="enough"):
        await run_process(["sh", "-c", "echo x >&2; sleep 60"], environment=ENVIRONMENT, on_stderr=refuse)


@pytest.mark.parametrize("trap", ["", "trap '' TERM;"])
async def test_cancel_ends_the_whole_group(trap: str) -> None:
    """Children in the background too, also when nobody listens to SIGTERM."""
    pids: list[int] = []
    script = f"{trap} sleep 300 & sleep 300 & echo $$ $!; wait; sleep 300"
    with trio.fail_after(40):
        with trio.CancelScope() as scope:
            async with open_process(["sh", "-c", script], environment=ENVIRONMENT, grace_seconds=0.2) as process:
                assert process.stdout is not None
                pids += map(int, (await process.stdout.receive_some()).split())
                scope.cancel()
                await trio.lowlevel.checkpoint()
    assert len(pids) == 2
    assert [pid for pid in pids if alive(pid)] == []


async def test_what_a_child_leaves_behind_is_ended() -> None:
    with trio.fail_after(40):
        async with open_process(["sh", "-c", "sleep 300 >&- 2>&- & echo $!"], environment=ENVIRONMENT) as process:
            assert process.stdout is not None
            pid = int(await process.stdout.receive_some())
            await process.wait()
            assert alive(pid)
    assert not alive(pid)
