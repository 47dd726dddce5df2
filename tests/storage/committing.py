"""A child process that commits without end and says on stdout what was answered; to be killed.

`python -m tests.storage.committing DIRECTORY SEED`: each line is `job next_seq` after a change, or `note seq`.
"""

import os
import random
import sys
from pathlib import Path

import trio

from blacktree.event import Notice
from blacktree.job import Job
from blacktree.storage.base import Decision, Outgoing, QueueItem
from blacktree.storage.sqlite import SqliteStore
from tests.contracts.store import T0, a_job, lines, queued


def said(text: str) -> None:
    """One write each, so that a kill cannot tear a line of what the parent has read."""
    os.write(1, f"{text}\n".encode())


async def one(store: SqliteStore, job_id: str, chance: random.Random) -> None:
    await store.create(a_job(job_id), [queued()], [])
    while True:
        number = chance.randrange(10)

        def decide(job: Job, number: int = number) -> Decision:
            seq = job.next_seq
            if number < 3:
                return Decision(
                    job=job,
                    records=(Notice(T0, 1, "mark", f"{seq}"),),
                    outgoing=(Outgoing(kind="event", job_id=job.id, generation=seq),),
                )
            return Decision(job=job, records=(lines(*[f"{seq + i}" for i in range(number * 7)]),))

        commit = await store.change(job_id, decide)
        said(f"{job_id} {commit.job.next_seq}")
        if number == 0:
            [id] = await store.queue_put("q", [QueueItem(body=job_id.encode())])
            said(f"queue {id}")
            said(f"note {(await store.note('x', job_id)).seq}")


async def main(directory: str, seed: int) -> None:
    store = SqliteStore(Path(directory), segment_bytes=20_000)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        said("ready")
        for number in range(8):
            nursery.start_soon(one, store, f"job-{number}", random.Random(seed * 100 + number))


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
