"""Holds a job as the farm tells it against what may never happen: gaps, doubles, illegal moves, a second end."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import trio

from blacktree.client import Client
from blacktree.job import ENDED, MOVES, JobState


async def every_event(client: Client, job_id: str) -> list[dict[str, Any]]:
    """All of a job's events, page by page."""
    events: list[dict[str, Any]] = []
    while True:
        page = await client.events(job_id, len(events) + 1)
        if not page["events"]:
            return events
        events += page["events"]


async def ended_once(client: Client, job_id: str, lines: Sequence[str] | None = None) -> dict[str, Any]:
    """The ended job, whose record keeps every promise; `lines` is what one whole attempt prints."""
    job = await client.job(job_id)
    events = await every_event(client, job_id)
    story = f"{job}\n" + "\n".join(map(str, events))
    assert job["state"] in ENDED, story
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1)), story
    _moves(job, events, story)
    _attempts(job, events, story)
    if lines is not None:
        _lines(job, events, lines, story)
    return job


def _moves(job: dict[str, Any], events: list[dict[str, Any]], story: str) -> None:
    states = [event for event in events if event["type"] == "state"]
    assert (states[0]["from"], states[0]["to"]) == (None, "queued"), story
    for before, after in pairwise(states):
        assert after["from"] == before["to"], story
        assert JobState(after["to"]) in MOVES[JobState(after["from"])], story
    ends = [event for event in states if event["to"] in ENDED]
    assert ends == [states[-1]], story
    assert ends[0]["to"] == job["state"], story
    # The end is the end: nothing was taken after it.
    assert events[-1] == ends[0], story


def _attempts(job: dict[str, Any], events: list[dict[str, Any]], story: str) -> None:
    numbers = [attempt["attempt"] for attempt in job["attempts"]]
    assert numbers == list(range(1, len(numbers) + 1)), story
    assert job["attempt"] == len(numbers), story
    assert all(attempt["outcome"] for attempt in job["attempts"]), story
    lost = [attempt["attempt"] for attempt in job["attempts"] if attempt["outcome"] == "lost"]
    over: set[int] = set()
    last = 0
    noted: list[int] = []
    for event in events:
        number = event["attempt"]
        if event["type"] == "notice" and event["code"] == "tail_lost":
            noted.append(number)
        if event["type"] != "state":
            # Of an attempt that was left nothing more is taken, and they never mix.
            assert number not in over, story
            assert number >= last, story
            last = number
        elif event["to"] in ("queued", *ENDED) and event["from"] and "hand-off refused" not in event["reason"]:
            over.add(number)
    assert set(lost) <= set(noted), story


def _lines(job: dict[str, Any], events: list[dict[str, Any]], lines: Sequence[str], story: str) -> None:
    printed: dict[int, list[str]] = defaultdict(list)
    for event in events:
        if event["type"] == "log":
            printed[event["attempt"]].append(event["line"])
    for attempt in job["attempts"]:
        found = printed.pop(attempt["attempt"], [])
        if attempt["outcome"] == "succeeded":
            assert found == list(lines), story
        else:
            assert found == list(lines[: len(found)]), story
    assert not printed, story


async def told_once(url: str, jobs: dict[str, dict[str, Any]]) -> None:
    """`status.queue` has each ended job at least once, and never two stories of one."""
    stories: dict[str, set[bytes]] = defaultdict(set)
    with trio.fail_after(40):
        while not set(jobs) <= set(stories):
            for body in await trio.to_thread.run_sync(read_all, url, "status.queue"):
                stories[msgspec.json.decode(body)["job"]["id"]].add(body)
            await trio.sleep(0.1)
    for job_id, job in jobs.items():
        assert len(stories[job_id]) == 1, stories[job_id]
        [body] = stories[job_id]
        assert msgspec.json.decode(body)["job"]["state"] == job["state"]


def read_all(url: str, queue: str) -> list[bytes]:
    """Every message that lies there now; taken away."""

    async def read() -> list[bytes]:
        import aio_pika

        found: list[bytes] = []
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            place = await channel.get_queue(queue, ensure=False)
            while (message := await place.get(no_ack=True, fail=False)) is not None:
                found.append(message.body)
        return found

    return asyncio.run(read())
