"""A RabbitMQ that no longer answers (a cut cable, a frozen machine) must not hold up a shutdown."""

from pathlib import Path

import pytest
import trio

from blacktree.concurrency.threads import in_thread
from tests.orchestrator.conftest import open_house
from tests.parts.rabbit import Proxy, shared_node

pytestmark = pytest.mark.rabbitmq
GRACE = 0.2


@pytest.mark.parametrize("how", ["silent", "away", "idle and silent"])
async def test_a_rabbitmq_that_does_not_answer_holds_up_no_shutdown(tmp_path: Path, how: str) -> None:
    node = await in_thread(shared_node)
    await in_thread(node.clear)
    async with trio.open_nursery() as nursery:
        proxy = Proxy(node.port)
        await nursery.start(proxy.run)
        url = node.url.replace(f":{node.port}/", f":{proxy.port}/")
        async with open_house(
            tmp_path, memory=True, broker_url=url, shutdown_grace_seconds=GRACE, lease_seconds=120.0
        ) as house:
            while house.control.readiness().state != "ready":
                await trio.sleep(0.05)
            worker = await house.worker(slots=1)
            if "idle" not in how:
                job_id = await house.submit()
                await worker.say(await worker.next_assignment())
                await house.until(job_id, "running")
                for _ in range(3):
                    await house.submit()
            if "silent" in how:
                proxy.black_hole = True
            else:
                proxy.refuse = True
                await proxy.cut()
            await house.submit()
            house.stop.set()
            # Less than a lease.
            with trio.fail_after(40):
                await house.ended.wait()
        nursery.cancel_scope.cancel()
