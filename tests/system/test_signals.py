"""What leaves the farm, with daemons that are processes: traces over both of them, notifications over kill -9."""

import httpx
import pytest
import trio

from blacktree.cipher import new_key
from tests.parts.collector import open_collector
from tests.parts.farm import SLOW, a_spec, open_farm, submit, until_state
from tests.parts.receiver import SECRET, open_receiver

pytestmark = pytest.mark.timeout(120)

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def test_one_trace_over_both_daemons() -> None:
    with open_collector() as collector, open_farm() as farm:
        farm.environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        farm.worker("w1")
        await farm.up()
        good = a_spec({"step": "compile", "lines": 2}, {"step": "link", "cached": True})
        async with farm.client() as client:
            async with httpx.AsyncClient(timeout=40) as http:
                headers = {
                    "authorization": f"Bearer {farm.token}",
                    "traceparent": f"00-{TRACE}-{CALLER}-01",
                }
                url = f"http://127.0.0.1:{farm.door}/api/v1/jobs"
                answer = await http.post(url, json=good, headers=headers, timeout=SLOW)
            assert answer.status_code == 201
            job_id = answer.json()["id"]
            assert answer.json()["trace"].startswith(f"00-{TRACE}-")
            await until_state(client, job_id, "succeeded")
            failing = await submit(client, a_spec({"step": "compile", "exit": 3}), "failing")
            await until_state(client, failing, "failed")
            unsampled = {"traceparent": f"00-{'a' * 32}-{CALLER}-00"}
            silent = await submit(client, a_spec({"step": "compile"}, **unsampled), "silent")
            await until_state(client, silent, "succeeded")
        with trio.fail_after(SLOW):
            while not (len(collector.named("job")) == 2 and len(collector.named("attempt")) == 2):
                await trio.sleep(0.05)
        spans = [span for span in collector.spans if span.attributes["blacktree.job"] == job_id]
        assert {span.trace for span in spans} == {TRACE}
        by_name = {span.name: span for span in spans}
        assert set(by_name) == {"job", "queued", "dispatched", "attempt", "step compile", "step link"}
        assert len({span.span for span in spans}) == len(spans) == 6
        root, attempt = by_name["job"], by_name["attempt"]
        assert root.parent == CALLER
        assert {by_name[name].parent for name in ("queued", "dispatched", "attempt")} == {root.span}
        assert {by_name[name].parent for name in ("step compile", "step link")} == {attempt.span}
        services = {span.service: {each.name for each in spans if each.service == span.service} for span in spans}
        assert services == {
            "blacktree-orchestrator": {"job", "queued", "dispatched"},
            "blacktree-worker": {"attempt", "step compile", "step link"},
        }
        assert by_name["step link"].attributes["blacktree.cached"] is True
        assert attempt.attributes["blacktree.worker"] == "w1"
        assert all(span.start <= span.end and span.error is None for span in spans)
        wrong = {span.name: span for span in collector.spans if span.attributes["blacktree.job"] == failing}
        assert wrong["job"].error
        assert wrong["attempt"].error
        assert wrong["job"].trace != TRACE
        assert wrong["job"].parent == ""
        # A collector that is away harms nobody, also not the end.
        collector.status = 503
        async with farm.client() as client:
            job_id = await submit(client, good, "unseen")
            await until_state(client, job_id, "succeeded")
        for daemon in (farm.orchestrator, farm.workers["w1"]):
            daemon.process.terminate() if daemon.process else None
        assert [await farm.orchestrator.ended(), await farm.workers["w1"].ended()] == [0, 0]


async def test_notifications_outlive_kill_9() -> None:
    """Whenever the orchestrator is killed: every end is told, each under one id."""
    with open_receiver() as receiver, open_farm() as farm:
        farm.environ["BLACKTREE_ORCHESTRATOR_SECRETS_KEY"] = new_key().text()
        receiver.script["/hook"] = 5 * [503]
        farm.worker("w1")
        await farm.up()
        jobs: list[str] = []
        async with farm.client() as client:
            await client.call("secret.put", {"kind": "webhook", "name": "hook", "value": SECRET.decode()})
            await client.call("notify.add", {"name": "t", "url": receiver.url(), "secret": "hook", "events": ["job.*"]})
            for round in range(3):
                for number in range(4):
                    jobs.append(await submit(client, a_spec({"step": "compile"}), f"{round}/{number}"))
                # In the middle of it, wherever that is.
                seen = len(receiver.all)
                with trio.move_on_after(SLOW):
                    while len(receiver.all) <= seen:
                        await trio.sleep(0.005)
                farm.orchestrator.kill()
                await farm.up(farm.orchestrator)
            for job_id in jobs:
                await until_state(client, job_id, "succeeded")
            wanted = {(job_id, f"job.{state}") for job_id in jobs for state in ("queued", "running", "succeeded")}
            told: dict[tuple[str, str], set[str]] = {}
            with trio.fail_after(SLOW):
                while not wanted <= set(told):
                    await trio.sleep(0.05)
                    told = {}
                    for each in receiver.taken():
                        told.setdefault((each.value["data"]["id"], each.value["type"]), set()).add(each.id)
            # One message for each end, however often it came.
            assert {len(ids) for (_, type), ids in told.items() if type == "job.succeeded"} == {1}
            bodies: dict[str, set[bytes]] = {}
            for each in receiver.all:
                bodies.setdefault(each.id, set()).add(each.body)
                assert each.genuine
            assert {len(same) for same in bodies.values()} == {1}
