"""One orchestrator and its workers as daemons of their own: TLS on both sides, lost machines, restarts, RabbitMQ."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aio_pika
import pytest
import trio
import trio_asyncio

from blacktree.client import Client
from blacktree.rpc.tls import Tls
from tests.parts.farm import Daemon, Farm, a_spec, open_farm, submit, until_line, until_state
from tests.parts.networks import Network, open_network
from tests.parts.rabbit import RabbitNode, open_rabbit, require_rabbitmq
from tests.parts.whole_farm import open_whole_farm
from tests.rpc.certificates import Authority

pytestmark = pytest.mark.timeout(180)

BEGIN = {"step": "1", "lines": 1, "line": "begun"}
END = {"step": "1", "lines": 1, "line": "ended"}


def tls_settings(tls: Tls, ca_key: str) -> dict[str, Any]:
    """The settings that name these files."""
    return {"tls_certificate_file": tls.certificate_file, "tls_key_file": tls.key_file, ca_key: tls.ca_file}


@pytest.fixture
def network() -> Iterator[Network]:
    with open_network("one", "two") as network:
        yield network


@pytest.fixture
def remote(network: Network, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Farm]:
    """The orchestrator here, and two workers that are reached by a network alone, all with certificates.

    The parameter is the lease in seconds: short to see it run out, long to see it never do."""
    authority = Authority(tmp_path, "farm-ca", network.hub_address, *network.addresses.values())
    with open_farm(
        orchestrator=tls_settings(authority.issue("orchestrator"), "tls_client_ca_file")
        | {"lease_seconds": request.param}
    ) as farm:
        farm.orchestrator.environ["BLACKTREE_ORCHESTRATOR_GRPC_LISTEN"] = f"0.0.0.0:{farm.grpc}"
        for name in network.machines:
            worker = farm.worker(
                name,
                orchestrator=f"{network.hub_address}:{farm.grpc}",
                listen="0.0.0.0:6000",
                advertise=f"{network.addresses[name]}:6000",
                **tls_settings(authority.issue(name), "tls_ca_file"),
            )
            worker.inside = network.on(name)
        yield farm


@pytest.mark.parametrize("remote", [10], indirect=True)
async def test_a_machine_that_falls_silent_is_lost_and_changes_nothing_when_it_is_back(
    remote: Farm, network: Network
) -> None:
    await remote.up()
    async with remote.client() as client:
        found = await client.workers()
        assert {each["address"] for each in found} == {f"{each}:6000" for each in network.addresses.values()}
        go = remote.home / "go"
        job_id = await submit(client, a_spec(BEGIN, {"until": str(go)}, END), "a")
        await until_line(client, job_id, "begun")
        first = (await client.job(job_id))["worker_id"]
        network.cut(first)
        await until_line(client, job_id, "begun", attempt=2)
        assert (await client.job(job_id))["worker_id"] != first
        go.touch()
        job = await until_state(client, job_id, "succeeded", "failed", "lost")
        assert [job["state"], job["attempt"], job["tries"]] == ["succeeded", 2, 1]
        before = await all_events(client, job_id)
        assert [each["line"] for each in before if each["type"] == "log"].count("ended") == 1

        network.mend(first)
        await remote.until_workers(client, lambda names: first in names)
        assert await all_events(client, job_id) == before
        assert await client.job(job_id) == job
        told = [each["type"] for each in (await client.farm_events())["events"]]
        assert told.count("worker_lost") == 1
        # And it builds again.
        other = next(name for name in network.machines if name != first)
        await client.drain(other)
        await until_state(client, await submit(client, a_spec(BEGIN), "b"), "succeeded")
        await client.drain(other, undo=True)


@pytest.mark.parametrize("remote", [60], indirect=True)
async def test_builds_survive_the_orchestrator_and_are_handed_back_by_a_worker(remote: Farm) -> None:
    await remote.up()
    async with remote.client() as client:
        running = [await submit(client, a_spec(BEGIN, {"seconds": 6}, END), f"k{number}") for number in range(2)]
        for job_id in running:
            await until_line(client, job_id, "begun")
        assert {(await client.job(each))["worker_id"] for each in running} == set(remote.workers)
        remote.orchestrator.kill()
        remote.orchestrator.start()
        await remote.ready()
        for job_id in running:
            job = await until_state(client, job_id, "succeeded", "failed", "lost")
            assert [job["state"], job["attempt"]] == ["succeeded", 1], "it was adopted, not built again"
            seqs = [each["seq"] for each in await all_events(client, job_id)]
            assert seqs == list(range(1, len(seqs) + 1))

        go = remote.home / "go"
        again = await submit(client, a_spec(BEGIN, {"until": str(go)}, END), "c")
        await until_line(client, again, "begun")
        leaving = remote.workers[(await client.job(again))["worker_id"]]
        leaving.send(signal.SIGTERM)
        assert await leaving.ended() == 0
        go.touch()
        job = await until_state(client, again, "succeeded", "failed", "lost")
        assert [job["state"], job["attempt"], job["tries"]] == ["succeeded", 2, 0]


async def all_events(client: Client, job_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.events(job_id, 1))["events"]
    return found


async def test_strangers_are_refused_and_told_why(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "farm-ca")
    (tmp_path / "other").mkdir()
    foreign = Authority(tmp_path / "other", "other-ca")
    mine, theirs = authority.issue("worker"), foreign.issue("stranger")
    with open_farm(orchestrator=tls_settings(authority.issue("orchestrator"), "tls_client_ca_file")) as farm:
        (tmp_path / "wrong").write_text("wrong\n")
        stranger = Tls(certificate_file=theirs.certificate_file, key_file=theirs.key_file, ca_file=mine.ca_file)
        distrustful = Tls(certificate_file=mine.certificate_file, key_file=mine.key_file, ca_file=theirs.ca_file)
        refused: dict[Daemon, str] = {
            farm.worker("plain"): "it may want TLS",
            farm.worker("stranger", **tls_settings(stranger, "tls_ca_file")): "may not accept this side's certificate",
            farm.worker("distrustful", **tls_settings(distrustful, "tls_ca_file")): "certificate verify failed",
            farm.worker("guest", **tls_settings(mine, "tls_ca_file")): "wrong or missing join token",
        }
        farm.workers["guest"].environ["BLACKTREE_WORKER_JOIN_TOKEN_FILE"] = str(tmp_path / "wrong")
        bare = farm.worker("bare", tls_ca_file=mine.ca_file)
        await farm.up(farm.orchestrator)
        for daemon in (*refused, bare):
            daemon.start()
        for daemon, words in refused.items():
            await until_said(daemon, words)
        assert await bare.ended() == 2
        assert "set tls_certificate_file and tls_key_file" in bare.said()
        async with farm.client() as client:
            assert await client.workers() == []
            farm.worker("good", **tls_settings(mine, "tls_ca_file")).start()
            await farm.until_workers(client, lambda names: names == ["good"])
            await until_state(client, await submit(client, a_spec(BEGIN), "a"), "succeeded")


async def test_nobody_listens_beyond_this_machine_without_certificates_unless_told_to(tmp_path: Path) -> None:
    with open_farm() as farm:
        orchestrator = farm.orchestrator
        orchestrator.environ["BLACKTREE_ORCHESTRATOR_GRPC_LISTEN"] = f"0.0.0.0:{farm.grpc}"
        orchestrator.start()
        assert await orchestrator.ended() == 2
        assert "allow_plaintext_grpc = true" in orchestrator.said()
        assert len(orchestrator.said().splitlines()) == 1
        orchestrator.environ["BLACKTREE_ORCHESTRATOR_ALLOW_PLAINTEXT_GRPC"] = "true"
        await farm.up(orchestrator)
        half = Farm(tmp_path, orchestrator={"tls_client_ca_file": "/nonexistent/ca.pem"})
        half.orchestrator.start()
        assert await half.orchestrator.ended() == 2
        assert "TLS is set up by half" in half.orchestrator.said()
        worker = farm.worker("open", listen="0.0.0.0:0", advertise="127.0.0.1:1")
        worker.start()
        assert await worker.ended() == 2
        assert "allow_plaintext_grpc = true" in worker.said()


async def until_said(daemon: Daemon, words: str) -> None:
    """Until a daemon's log has these words; it must live on."""
    try:
        with trio.fail_after(40):
            while words not in daemon.said():
                assert daemon.alive, daemon.said()
                await trio.sleep(0.05)
    except trio.TooSlowError:
        raise AssertionError(f"not told: {words}\n{daemon.said()}") from None


def test_every_value_tells_where_it_comes_from(tmp_path: Path) -> None:
    """File, environment, the original's variables; flags are above them (tests/cli/test_config.py)."""
    with open_whole_farm(tmp_path) as farm:
        file = tmp_path / "settings.toml"
        file.write_text('[worker]\nslots = 3\npool = "file"\n[queue]\nevents = true\n')
        farm.environ |= {
            "MQ_URL": "amqp://tree:hunter2@rabbit/",
            "ORCHESTRATOR_ADDR": "farm.example",
            "ORCHESTRATOR_GRPC_PORT": "5099",
            "WORKER_ID": "w9",
            "BLACKTREE_WORKER_POOL": "arm",
        }
        shown = json.loads(farm.run("config", "--config", str(file), "--json").stdout)
        found = {
            (section, key): (entry["value"], entry["origin"])
            for section, keys in shown.items()
            for key, entry in keys.items()
        }
        assert found["orchestrator", "broker_url"] == ("amqp://tree:***@rabbit/", "environment MQ_URL")
        assert found["worker", "orchestrator"] == ("farm.example:5099", "environment ORCHESTRATOR_ADDR")
        assert found["orchestrator", "grpc_listen"] == ("127.0.0.1:5099", "environment ORCHESTRATOR_GRPC_PORT")
        assert found["worker", "id"] == ("w9", "environment WORKER_ID")
        assert found["worker", "pool"] == ("arm", "environment BLACKTREE_WORKER_POOL")
        assert found["worker", "slots"] == (3, f"file {file}")
        assert found["orchestrator", "lease_seconds"] == (30.0, "default")


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitNode]:
    require_rabbitmq()
    with open_rabbit() as node:
        yield node


async def taken(url: str, queue: str, count: int) -> list[dict[str, Any]]:
    """So many messages of a queue, as a plain client of RabbitMQ gets them.

    One that RabbitMQ had and could not confirm before it was killed is there twice, to the letter: at least once."""

    async def take() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        connection = await aio_pika.connect(url)
        async with connection:
            channel = await connection.channel()
            source = await channel.get_queue(queue)
            async with source.iterator() as messages:
                async for message in messages:
                    await message.ack()
                    body = json.loads(message.body)
                    one = {"body": body, "id": message.message_id, "mode": message.delivery_mode}
                    if one not in found:
                        found.append(one)
                    if len(found) == count:
                        break
        return found

    with trio.fail_after(40):
        async with trio_asyncio.open_loop():
            answer: list[dict[str, Any]] = await trio_asyncio.aio_as_trio(take)()
            return answer


async def test_rabbitmq_late_away_and_back_with_certificates_between_the_daemons(
    rabbit: RabbitNode, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "farm-ca")
    settings = {"broker_url": rabbit.url} | tls_settings(authority.issue("orchestrator"), "tls_client_ca_file")
    with open_farm(orchestrator=settings) as farm:
        farm.orchestrator.environ["BLACKTREE_QUEUE_EVENTS"] = "true"
        for name in ("one", "two"):
            farm.worker(name, **tls_settings(authority.issue(name), "tls_ca_file"))
        rabbit.kill()
        farm.orchestrator.start()
        status = await farm.ready("degraded")
        for worker in farm.workers.values():
            worker.start()
        assert any("broker" in reason or "RabbitMQ" in reason for reason in status["reasons"]), status
        async with farm.client() as client:
            await farm.until_workers(client, lambda names: set(names) == {"one", "two"})
            early = await submit(client, a_spec(BEGIN, END), "early")
            assert (await client.job(early))["state"] == "queued"
            await trio.to_thread.run_sync(rabbit.start)
            await until_state(client, early, "succeeded")
            await farm.ready("ready")

            running = await submit(client, a_spec(BEGIN, {"seconds": 4}, END), "running")
            await until_line(client, running, "begun")
            rabbit.kill()
            await farm.ready("degraded")
            waiting = await submit(client, a_spec(BEGIN, {"exit": 3}), "waiting")
            job = await until_state(client, running, "succeeded", "failed")
            assert [job["state"], job["attempt"]] == ["succeeded", 1], "a running build does not notice"
            await trio.to_thread.run_sync(rabbit.start)
            await until_state(client, waiting, "failed")
            await farm.ready("ready")

            results = {each["id"]: each for each in await taken(rabbit.url, "status.queue", 3)}
            assert set(results) == {early, running, waiting}
            for job_id, message in results.items():
                body = message["body"]
                assert set(body) == {"deploymentId", "success", "imageUrl", "logs", "error", "job"}
                assert [body["deploymentId"], body["success"]] == [job_id, job_id != waiting]
                assert "begun" in body["logs"]
                assert body["job"]["id"] == job_id
                assert message["mode"] == aio_pika.DeliveryMode.PERSISTENT
            assert results[waiting]["body"]["error"]

            told = [each["body"] for each in await taken(rabbit.url, "event.queue", 12)]
            for job_id, end in ((early, "succeeded"), (running, "succeeded"), (waiting, "failed")):
                moves = [each["to"] for each in told if each["id"] == job_id]
                assert moves == ["queued", "assigned", "running", end]


async def test_up_with_rabbitmq(rabbit: RabbitNode, tmp_path: Path) -> None:
    rabbit.clear()
    (tmp_path / "second").mkdir()
    with open_whole_farm(tmp_path) as farm, open_whole_farm(tmp_path / "second") as second:
        await trio.to_thread.run_sync(lambda: farm.start("--broker", rabbit.url))
        await trio.to_thread.run_sync(lambda: second.start("--broker", rabbit.url))
        # It does not end: it takes over when the first one has gone.
        looked = json.loads(
            (await trio.to_thread.run_sync(second.run, "doctor", "--server", second.url, "--json")).stdout
        )
        told = next(each for each in looked["findings"] if each["part"] == "server")
        assert told["status"] == "warning"
        assert "another" in told["text"], told
        ran = await trio.to_thread.run_sync(farm.run, "build", "/nowhere/app")
        assert "==> succeeded (attempt 1)" in ran.stdout
        assert [each["body"]["success"] for each in await taken(rabbit.url, "status.queue", 1)] == [True]
        assert farm.stop() == 0
        assert rabbit.password not in farm.said + farm.log.read_text()
