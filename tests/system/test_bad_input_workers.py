"""Workers that should not be let in, at the real daemon's gRPC: refused with advice, and the farm goes on."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from blacktree.concurrency.island import open_island
from blacktree.errors import BadRequest, BlacktreeError, NotAllowed
from blacktree.rpc.client import connect_orchestrator
from blacktree.rpc.peer import PROTOCOL_VERSION, Answer, Registration, WorkerStatus
from tests.parts.build_farm import BuildFarm
from tests.parts.toy_worker import ToyWorker, open_worker
from tests.parts.whole_farm import WholeFarm, open_whole_farm


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildFarm]:
    """Scripted builds: what is at stake here is who may do them."""
    with open_whole_farm(tmp_path_factory.mktemp("workers")) as whole:
        whole.start()
        yield BuildFarm(whole, "")
        assert whole.stop() == 0


def door(whole: WholeFarm) -> str:
    """Where this farm's workers meet the orchestrator."""
    (found,) = Path(whole.environ["XDG_RUNTIME_DIR"]).glob("blacktree/*/farm.sock")
    return f"unix:{found}"


def join_token(whole: WholeFarm) -> str:
    return (whole.state / "join-token").read_text().strip()


def a_registration(**changes: Any) -> Registration:
    values: dict[str, Any] = {
        "worker_id": "stranger",
        "incarnation": "stranger-1",
        "secret": "the stranger's secret",
        "protocol": PROTOCOL_VERSION,
        "version": "test",
        "address": "127.0.0.1:1",
        "pool": "strangers",
        "labels": {},
        "platform": "linux/amd64",
        "status": WorkerStatus(slots=1, busy=0),
    }
    return Registration(**values | changes)


async def register(farm: BuildFarm, registration: Registration, token: str = "") -> BlacktreeError:
    """Present it; answers the refusal."""
    with trio.fail_after(40):
        async with connect_orchestrator(door(farm.farm), join_token=token or join_token(farm.farm)) as side:
            with pytest.raises(BlacktreeError) as caught:
                await side.register(registration)
    return caught.value


async def worker_ids(farm: BuildFarm) -> set[str]:
    async with farm.client() as client:
        return {worker["id"] for worker in await client.workers() if worker["state"] != "dead"}


@pytest.fixture(autouse=True)
def _the_farm_goes_on(farm: BuildFarm) -> Iterator[None]:
    """The worker of the farm itself is the same before and after, and builds."""
    pid = farm.farm.worker_pid
    own = trio.run(worker_ids, farm)
    yield
    trio.run(farm.built, "/nowhere/app")
    assert farm.farm.worker_pid == pid
    assert own <= trio.run(worker_ids, farm)


@pytest.fixture
async def island() -> AsyncIterator[None]:
    """Where gRPC lives."""
    async with open_island():
        yield


async def test_a_wrong_token(farm: BuildFarm, island: None) -> None:
    error = await register(farm, a_registration(), token="not-the-token-of-this-farm")
    assert isinstance(error, NotAllowed)
    assert error.code == "unauthenticated"
    assert "join" in str(error)
    assert "join_token_file" in error.advice
    assert "stranger" not in await worker_ids(farm)


@pytest.mark.parametrize(("protocol", "word"), [(PROTOCOL_VERSION - 1, "older"), (PROTOCOL_VERSION + 1, "newer")])
async def test_another_protocol(farm: BuildFarm, island: None, protocol: int, word: str) -> None:
    error = await register(farm, a_registration(protocol=protocol))
    assert isinstance(error, NotAllowed)
    assert error.code == "protocol_version"
    assert word in error.advice
    assert "stranger" not in await worker_ids(farm)


async def test_an_id_that_is_taken(farm: BuildFarm, island: None) -> None:
    (taken,) = await worker_ids(farm)
    error = await register(farm, a_registration(worker_id=taken, pool="default"))
    assert isinstance(error, NotAllowed)
    assert error.code == "duplicate_worker"
    assert taken in error.message
    assert "worker.id" in error.advice


@pytest.mark.parametrize(
    "status",
    [
        WorkerStatus(slots=0, busy=0),
        WorkerStatus(slots=-3, busy=0),
        WorkerStatus(slots=1_000_000, busy=0),
        WorkerStatus(slots=2, busy=3),
        WorkerStatus(slots=2, busy=-1),
    ],
)
async def test_slots_that_cannot_be(farm: BuildFarm, island: None, status: WorkerStatus) -> None:
    error = await register(farm, a_registration(status=status))
    if min(status.slots, status.busy) < 0:
        assert isinstance(error, BadRequest)
        assert "is below 0" in error.message
    else:
        assert isinstance(error, NotAllowed)
        assert error.code == "bad_slots"
        assert "worker.slots" in error.advice
    assert "stranger" not in await worker_ids(farm)


async def test_slots_that_are_not_there(farm: BuildFarm, island: None, tmp_path: Path) -> None:
    """It says that it has room and takes nothing: its refusals are no attempts, and an honest worker gets the job."""
    where, token = door(farm.farm), join_token(farm.farm)
    liar = Liar(pool="liars", slots=50)
    async with open_worker(liar, where, token, tmp_path):
        job = await farm.submit("/nowhere/app", pool="liars")
        with trio.fail_after(80):
            async with farm.client() as client:
                while liar.asked < 2:
                    await trio.sleep(0.05)
                # In between it is handed over, which is refused.
                while (found := await client.job(job["id"]))["state"] != "queued":
                    await trio.sleep(0.01)
                assert (found["attempt"], found["tries"]) == (0, 0)
                assert found["waiting"]
                async with open_worker(ToyWorker(pool="liars", automatic=True), where, token, tmp_path) as honest:
                    ended = await farm.follow(job["id"], client)
                    assert ended.state == "succeeded"
                    assert (ended.job["worker_id"], ended.job["attempt"]) == (honest.id, 1)


async def test_slots_that_change_under_way(farm: BuildFarm, island: None, tmp_path: Path) -> None:
    """A report cannot raise what the registration said: no more is handed over than that."""
    toy = ToyWorker(pool="growers", slots=1)
    async with open_worker(toy, door(farm.farm), join_token(farm.farm), tmp_path):
        toy.slots = 1000
        with trio.fail_after(80):
            await toy.report()
            async with farm.client() as client:
                view = next(each for each in await client.workers() if each["id"] == toy.id)
                assert view["slots"] == 1
                jobs = [await farm.submit("/nowhere/app", pool="growers") for _ in range(3)]
                first = await toy.next_assignment()
                # The others have been looked at by now: the next one comes only after the first has ended.
                while not (await client.job(jobs[2]["id"]))["waiting"]:
                    await trio.sleep(0.02)
                assert len(toy.held) == 1
                await toy.end(first)
                for _ in jobs[1:]:
                    await toy.end(await toy.next_assignment())
                for job in jobs:
                    assert (await farm.follow(job["id"], client)).state == "succeeded"


class Liar(ToyWorker):
    """Counts how often it is asked, and never has room."""

    asked = 0

    async def run_jobs(self, assignments: Any) -> Any:
        self.asked += 1
        return [Answer(accepted=False, code="busy", reason="all slots busy") for _ in assignments]
