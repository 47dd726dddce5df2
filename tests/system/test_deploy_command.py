"""Deployments through the whole path: command line, door, rollout, worker, engine, front port, and the log back."""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.parts.build_farm import BuildFarm, nonce, open_build_farm, open_engine
from tests.parts.engine import BASE
from tests.parts.git_server import make_repository
from tests.parts.ports import free_port
from tests.parts.whole_farm import command_line

pytestmark = [pytest.mark.docker, pytest.mark.timeout(150)]

DOCKERFILE = f"""
FROM {BASE}
ARG VERSION
RUN mkdir -p /www && echo "$VERSION" > /www/index.html
CMD ["sh", "-c", "echo it starts; exec httpd -f -p 8080 -h /www"]
"""


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildFarm]:
    with open_engine() as socket, open_build_farm(tmp_path_factory.mktemp("deployments"), socket) as farm:
        yield farm


class Shop:
    """A service of a name, port and repository of its own."""

    def __init__(self, farm: BuildFarm, home: Path) -> None:
        self.farm = farm
        self.name = f"shop-{nonce()}"
        self.port = free_port()
        self.repository = make_repository(home / self.name, {"Dockerfile": DOCKERFILE})

    def deploy(self, target: str, *more: str, code: int = 0) -> str:
        common = ("--name", self.name, "--port", f"{self.port}:8080", "--drain", "5")
        done = self.farm.farm.run("deploy", target, *common, *more, code=code, seconds=90)
        return done.stdout

    def build(self, version: str) -> str:
        image = ("-t", f"{self.name}:{version}", "--build-arg", f"VERSION={version}")
        return self.deploy(str(self.repository), *image, "--health-http", "8080/index.html")

    def page(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/index.html", timeout=40) as answer:
            text: str = answer.read().decode().strip()
        return text

    def stop(self) -> None:
        self.farm.farm.run("stop", self.name, seconds=60)
        assert self.containers() == []
        for version in ("one", "two"):
            self.farm.docker("image", "rm", "-f", f"{self.name}:{version}", code=None)

    def containers(self) -> list[str]:
        return self.farm.docker("ps", "-aq", "--filter", f"name=blacktree-{self.name}-").split()


@pytest.fixture
def shop(farm: BuildFarm, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(farm, tmp_path)
    try:
        yield shop
    finally:
        shop.stop()


class Visits:
    """Somebody who asks for the page all the time; `errors` are requests that were lost."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._end = Event()
        self._thread = Thread(target=self._ask)
        self.seen: list[str] = []
        self.errors: list[str] = []

    def __enter__(self) -> "Visits":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._end.wait(0.005):
            try:
                page = self._shop.page()
            except OSError as error:
                self.errors.append(repr(error))
            else:
                if self.seen[-1:] != [page]:
                    self.seen.append(page)


def test_deploy_switch_fail_and_go_back(shop: Shop) -> None:
    run = shop.farm.farm.run
    said = shop.build("one")
    assert f"deployment {shop.name}: version 1 runs on 127.0.0.1:{shop.port}" in said
    assert shop.page() == "one"
    with Visits(shop) as visits:
        shop.build("two")
        while "two" not in visits.seen:
            time.sleep(0.02)
    assert (visits.seen, visits.errors) == (["one", "two"], [])
    # What crashes, what is not healthy, and what is not there: the second one goes on.
    crashing = ("--command", "sh -c 'echo last words; exit 3'", "--health-http", "8080/", "--start", "20s")
    said = shop.deploy(f"{shop.name}:two", *crashing, code=1)
    assert "  | last words" in said
    assert "version 2 goes on serving" in said
    said = shop.deploy(f"{shop.name}:two", "--health-http", "8080/nothing", "--start", "8s", code=1)
    assert "404" in said
    shop.deploy("127.0.0.1:1/nowhere/app:1", code=1)
    assert shop.page() == "two"
    said = run("rollback", shop.name, seconds=60).stdout
    assert "version 6 running: replaces version 2" in said
    assert shop.page() == "one"
    found = json.loads(run("deployment", shop.name, "--json").stdout)
    assert [each["state"] for each in found["versions"]][2:5] == ["failed"] * 3
    assert (found["serving"], found["versions"][5]["rollback_of"]) == (6, 1)
    events = [json.loads(line) for line in run("logs", "--deployment", shop.name, "--json").stdout.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {event["attempt"] for event in events if event.get("line") == "it starts"} >= {1, 2, 6}
    run("restart", shop.name, seconds=60)
    assert shop.page() == "one"
    listed = run("deployments").stdout
    assert shop.name in listed


def test_out_of_memory_is_a_version_that_failed(shop: Shop) -> None:
    shop.build("one")
    eat = "sh -c 'sleep 0.2; tail /dev/zero'"
    said = shop.deploy(f"{shop.name}:one", "--command", eat, "--memory", "16m", "--settle", "20s", code=1)
    assert "memory" in said
    assert shop.page() == "one"


def test_what_is_refused_at_once(shop: Shop) -> None:
    shop.build("one")
    run = shop.farm.farm.run
    refused = run("deploy", f"{shop.name}:one", "--name", "other", "--port", f"{shop.port}:80", code=2)
    assert f"belongs to deployment {shop.name}" in refused.stderr
    assert "unknown" not in run("deploy", "x:1", "--name", "Not-A-Name", code=2).stderr
    assert "run secret `nowhere`" in run("deploy", "x:1", "--name", "other", "--secret", "nowhere", code=2).stderr
    for command in ("stop", "restart", "rollback", "deployment"):
        assert "no deployment" in run(command, "other", code=2).stderr
    assert "no deployment" in run("logs", "--deployment", "other", code=2).stderr


def test_containers_serve_on_while_the_farm_is_gone_and_are_found_again(shop: Shop) -> None:
    shop.build("one")
    before = shop.containers()
    farm = shop.farm.farm
    assert farm.stop() == 0
    assert shop.containers() == before
    farm.start()
    deadline = time.monotonic() + 60
    while json.loads(farm.run("deployment", shop.name, "--json").stdout)["replicas"][0]["state"] != "healthy":
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert shop.page() == "one"
    assert shop.containers() == before


def test_kill_9_of_the_whole_farm_in_the_middle_of_a_rollout(shop: Shop) -> None:
    shop.build("one")
    farm = shop.farm.farm
    run = ("--name", shop.name, "--port", f"{shop.port}:8080", "--drain", "1", "--settle", "2s")
    farm.run("deploy", str(shop.repository), "-t", f"{shop.name}:two", "--build-arg", "VERSION=two", *run, "--detach")
    deadline = time.monotonic() + 40
    while (found := json.loads(farm.run("deployment", shop.name, "--json").stdout))["target"] != 2:
        assert time.monotonic() < deadline, found
        time.sleep(0.3)
    assert farm.stop(signal.SIGKILL) == -signal.SIGKILL
    if "with-farm" in command_line(farm.worker_pid):
        with suppress(ProcessLookupError):
            os.kill(farm.worker_pid, signal.SIGKILL)
    farm.start()
    deadline = time.monotonic() + 40
    while (found := json.loads(farm.run("deployment", shop.name, "--json").stdout))["serving"] != 2:
        assert time.monotonic() < deadline, found
        time.sleep(0.3)
    deadline = time.monotonic() + 40
    while shop.page() != "two":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    deadline = time.monotonic() + 40
    while len(shop.containers()) != 1:
        assert time.monotonic() < deadline, shop.containers()
        time.sleep(0.2)
