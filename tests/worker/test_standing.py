"""Which of several refusals is told."""

from pathlib import Path

from blacktree.config import WorkerConfig
from blacktree.providers.base import Health
from blacktree.worker.lease import Lease, boottime
from blacktree.worker.roster import Roster
from blacktree.worker.standing import Standing
from tests.parts.disk import few_files


async def test_an_engine_that_cannot_be_reached_is_told_before_what_follows_from_it(tmp_path: Path) -> None:
    lease = Lease()
    lease.renew(boottime(), 30.0)
    standing = Standing(WorkerConfig(minimum_free_disk_bytes=0), tmp_path, Roster(), lease)
    standing.health = Health(name="docker", refusal="no engine answers")
    assert standing.refusal() == ("engine_refused", "no engine answers")
    standing.health = Health(name="docker")
    assert standing.refusal() == ("unproven", "the worker has not swept its engine yet")
    standing.suspect = ""
    assert standing.refusal() == ("", "")


async def test_the_engine_s_disk_counts_as_the_worker_s_own(tmp_path: Path) -> None:
    lease = Lease()
    lease.renew(boottime(), 30.0)
    with few_files(tmp_path / "disk") as disk:
        standing = Standing(WorkerConfig(minimum_free_disk_bytes=1), tmp_path, Roster(), lease)
        standing.suspect = ""
        standing.health = Health(name="docker", directories=[str(disk)])
        code, reason = standing.refusal()
        assert (code, "inodes" in reason, str(disk) in reason) == ("disk_full", True, True)
        assert standing.short


async def test_the_platforms_are_the_engine_s_unless_the_settings_say_others(tmp_path: Path) -> None:
    health = Health(name="docker", platforms=["linux/amd64", "linux/386"], emulated=["linux/arm64"])
    found = []
    for config in (WorkerConfig(), WorkerConfig(platforms=("linux/arm64/v8", "linux/arm64", "linux"))):
        standing = Standing(config, tmp_path, Roster(), Lease())
        standing.health = health
        found.append((standing.status().platforms, standing.status().emulated))
    assert found == [(["linux/amd64", "linux/386"], ["linux/arm64"]), (["linux/arm64"], [])]
