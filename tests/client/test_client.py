"""The client against a real door: calls, watches, lost connections and restarts."""

import socket

import pytest
import trio
import trio.testing

from blacktree.client import Client, Endpoint
from blacktree.errors import BadRequest, Conflict, NotAllowed, NotFound, TooLarge, Unavailable
from blacktree.job import JobState
from tests.api.little import SPEC, TOKEN, Little, open_house
from tests.api.talk import until
from tests.parts.ports import free_port


async def test_every_call() -> None:
    async with open_house() as house, Client(house.address, TOKEN) as client:
        job = await client.submit(SPEC)
        assert (await client.submit(SPEC, key="k"))["id"] == (await client.submit(SPEC, key="k"))["id"]
        with pytest.raises(Conflict):
            await client.submit({**SPEC, "ref": "x"}, key="k")
        assert (await client.job(job["id"]))["state"] == "queued"
        assert len((await client.jobs(["queued"], limit=1))["jobs"]) == 1
        with pytest.raises(Conflict):
            await client.retry(job["id"])
        assert (await client.cancel(job["id"], reason="no need"))["state"] == "canceled"
        assert (await client.retry(job["id"]))["retry_of"] == job["id"]
        assert (await client.events(job["id"]))["next_seq"] == 3
        assert (await client.workers())[0]["id"] == "w1"
        assert (await client.drain("w1"))["state"] == "draining"
        assert (await client.drain("w1", undo=True))["state"] == "free"
        assert (await client.server_info())["status"] == "ready"
        with pytest.raises(NotFound):
            await client.job("unknown")
        with pytest.raises(BadRequest) as bad:
            await client.submit({"repository": "x", "conext": "y"})
        assert (bad.value.path, bad.value.advice) == ("spec.conext", "did you mean `context`?")
        assert house.door.tally.connections == 1


async def test_a_spec_that_is_too_large_is_told_and_not_sent_again() -> None:
    async with open_house(maximum_frame_bytes=10_000) as house, Client(house.address, TOKEN) as client:
        for size in (20_000, 10 << 20):
            with pytest.raises(TooLarge):
                await client.submit({**SPEC, "build_args": {"A": "x" * size}})
        assert (await client.server_info())["status"] == "ready"


async def test_a_server_that_is_not_there_is_told_at_once() -> None:
    with socket.socket() as nobody:
        # Nobody listens there, and nobody else gets it.
        nobody.bind(("127.0.0.1", 0))
        await is_told_at_once(f"127.0.0.1:{nobody.getsockname()[1]}")


async def is_told_at_once(address: str) -> None:
    async with Client(address, TOKEN) as client:
        with pytest.raises(Unavailable) as gone:
            await client.jobs()
        assert gone.value.code == "server_unreachable"
        assert address in gone.value.advice
        with pytest.raises(Unavailable):
            async with client.watch("x"):
                pass


async def test_a_wrong_token_and_a_wrong_place() -> None:
    async with open_house() as house:
        async with Client(house.address, "wrong") as client:
            with pytest.raises(NotAllowed) as refused:
                await client.jobs()
            assert refused.value.code == "unauthorized"
            assert "does not know this token" in str(refused.value)
        async with Client(house.address, "") as client:
            with pytest.raises(NotAllowed, match="wants a token, and none was given"):
                await client.jobs()
        async with Client(house.address, f"{TOKEN}\n") as client:
            assert await client.jobs() is not None
        async with Client(f"http://{house.address}/base", TOKEN) as client:
            with pytest.raises(Unavailable) as lost:
                await client.jobs()
            assert lost.value.code == "server_unreachable"
            assert lost.value.advice.endswith("?")
        async with Client(f"https://{house.address}", TOKEN) as client:
            with pytest.raises(Unavailable, match=f"does not speak TLS; write http://{house.address}"):
                await client.jobs()


@pytest.mark.parametrize("server", ["ftp://x", "http://", "http://user:secret@x", "http://x:99999", "http://x?token=y"])
async def test_addresses_that_are_none(server: str) -> None:
    with pytest.raises(BadRequest):
        Endpoint(server, TOKEN)
    with pytest.raises(BadRequest, match="line break"):
        Endpoint("127.0.0.1:80", "two\nlines")
    assert TOKEN not in repr(Endpoint("127.0.0.1:80", TOKEN))


async def test_an_error_in_the_body_comes_out_as_itself() -> None:
    with pytest.raises(ZeroDivisionError):
        async with Client("127.0.0.1:1", "x"):
            raise ZeroDivisionError


async def test_a_watch_reads_to_the_end() -> None:
    async with open_house() as house, Client(house.address, TOKEN) as client:
        job_id = await house.control.new_job()
        async with trio.open_nursery() as nursery:

            async def work() -> None:
                for number in range(30):
                    await house.control.print(job_id, [f"{number}.{part}" for part in range(5)])
                await house.control.finish(job_id)

            nursery.start_soon(work)
            lines = []
            async with client.watch(job_id) as watch:
                assert watch.job["id"] == job_id
                async for batch in watch:
                    lines += [event["line"] for event in batch.events if event["type"] == "log"]
                    assert len(batch.raw) == len(batch)
            assert lines == [f"{number}.{part}" for number in range(30) for part in range(5)]
            assert watch.job["state"] == "succeeded"
        with pytest.raises(NotFound):
            async with client.watch("unknown"):
                pass


async def test_a_watch_survives_restarts_of_the_door() -> None:
    outages: list[str] = []
    control = Little()
    async with trio.open_nursery() as nursery:
        await nursery.start(control.store.run)
        job_id = await control.new_job()
        seen: list[int] = []
        ended: list[str] = []
        address = f"127.0.0.1:{free_port()}"

        async def read(address: str) -> None:
            async with Client(address, TOKEN, on_outage=outages.append) as client, client.watch(job_id) as watch:
                async for batch in watch:
                    seen.extend(event["seq"] for event in batch.events)
                ended.append(watch.job["state"])

        for restart in range(4):
            async with open_house(control, listen=address) as house:
                if restart == 0:
                    nursery.start_soon(read, address)
                await until(lambda: house.door.tally.watches == 1)
                for number in range(20):
                    await control.print(job_id, [f"{restart}.{number}"] * 7)
                    await trio.lowlevel.checkpoint()
                if restart == 3:
                    await control.finish(job_id)
                    await until(lambda: bool(ended))
            await control.print(job_id, ["while nobody could read"]) if restart < 3 else None
        nursery.cancel_scope.cancel()
    assert ended == ["succeeded"]
    assert seen == list(range(1, (await _next_seq(control, job_id))))
    assert 1 <= len(outages) <= 3


async def _next_seq(control: Little, job_id: str) -> int:
    # The store has ended with its nursery; its memory has not.
    return control.store._jobs[job_id].next_seq


async def test_a_call_is_sent_again_and_a_retry_is_not() -> None:
    control = Little()
    async with trio.open_nursery() as nursery:
        await nursery.start(control.store.run)
        first = await control.new_job()
        await control.finish(first)
        address = f"127.0.0.1:{free_port()}"
        async with open_house(control, listen=address):
            client = await nursery.start(_keep, address)
            await client.jobs()
            control.slow_cancel = True
            job_id = await control.new_job()
            answers: list[str] = []

            async def cancel() -> None:
                answers.append((await client.cancel(job_id))["state"])

            nursery.start_soon(cancel)
            await until(lambda: control.canceling)
        async with open_house(control, listen=address):
            control.slow_cancel = False
            await control.store.change(job_id, _canceled)
            await until(lambda: answers == ["canceled"])
            assert len((await client.jobs())["jobs"]) == 2
        nursery.cancel_scope.cancel()


def _canceled(job):
    from tests.api.little import to_state

    return to_state(job, JobState.CANCELED)


async def _keep(address: str, *, task_status: trio.TaskStatus[Client]) -> None:
    async with Client(address, TOKEN) as client:
        task_status.started(client)
        await trio.sleep_forever()


async def test_patience_runs_out() -> None:
    async with open_house() as house:
        job_id = await house.control.new_job()
        async with Client(house.address, TOKEN, patience_seconds=0.5) as client:
            async with client.watch(job_id) as watch:
                house.stop.cancel()
                with pytest.raises(Unavailable) as gone:
                    async for _ in watch:
                        pass
                assert gone.value.code == "server_unreachable"


async def test_leaving_a_call_leaves_no_answer_for_the_next() -> None:
    async with open_house() as house, Client(house.address, TOKEN) as client:
        house.control.slow_cancel = True
        job_id = await house.control.new_job()

        async def leave_once_it_is_heard(scope: trio.CancelScope) -> None:
            while (await house.control.job(job_id)).job.state != JobState.CANCELING:
                await trio.sleep(0.01)
            scope.cancel()

        with trio.fail_after(40):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(leave_once_it_is_heard, nursery.cancel_scope)
                await client.cancel(job_id)
        assert (await client.job(job_id))["state"] == "canceling"
        await house.control.finish(job_id, JobState.CANCELED)
        assert (await client.server_info())["status"] == "ready"


async def test_the_farms_events_are_followed() -> None:
    async with open_house() as house, Client(house.address, TOKEN) as client:
        await house.control.store.note("started", "the farm has started")
        seen: list[str] = []
        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                from_seq = 1
                while len(seen) < 3:
                    found = await client.farm_events(from_seq, wait=10)
                    from_seq = found["next_seq"]
                    seen.extend(event["type"] for event in found["events"])

            nursery.start_soon(follow)
            for kind in ("worker_joined", "worker_lost"):
                await trio.testing.wait_all_tasks_blocked(0.05)
                await house.control.store.note(kind, "w1")
                house.control.journal.touch()
        assert seen == ["started", "worker_joined", "worker_lost"]


async def test_the_farm_is_watched_across_restarts_of_the_door() -> None:
    control = Little()
    lost: list[str] = []
    wholes: list[set[str]] = []
    changed: list[str] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(control.store.run)

        async def watch(address: str) -> None:
            async with Client(address, TOKEN) as client:
                await client.server_info()
                async with client.watch_farm(lost.append) as farm:
                    async for change in farm:
                        ids = [job["id"] for job in change.get("jobs", ())]
                        if change["whole"]:
                            wholes.append(set(ids))
                            assert {"workers", "queue"} <= set(change)
                        else:
                            changed.extend(ids)

        first = await control.new_job()
        address = f"127.0.0.1:{free_port()}"
        async with open_house(control, listen=address):
            nursery.start_soon(watch, address)
            await until(lambda: wholes == [{first}], 40)
            second = await control.new_job()
            await until(lambda: second in changed, 40)
        third = await control.new_job()
        await until(lambda: len(lost) == 1, 40)
        async with open_house(control, listen=address):
            await until(lambda: len(wholes) == 2, 40)
        assert wholes[1] == {first, second, third}
        nursery.cancel_scope.cancel()
