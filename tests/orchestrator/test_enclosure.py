"""What goes with a job: the vault before files, scopes kept, and nothing at all for outsiders."""

import json
from pathlib import Path

import msgspec
import pytest

from blacktree.cipher import new_key
from blacktree.clock import now
from blacktree.job import Job, JobState, Origin
from blacktree.orchestrator import enclosure
from blacktree.orchestrator.enclosure import enclosed, host_of
from blacktree.orchestrator.vault import Vault
from blacktree.secret import SecretKind
from blacktree.secretfiles import SecretDirectory
from blacktree.spec import JobSpec
from tests.orchestrator.test_vault import open_memory, open_vault

REPOSITORY = "https://example.test/team/app.git"


def a_job(origin: Origin | None = None, **spec: object) -> Job:
    given = msgspec.convert({"repository": REPOSITORY, **spec}, JobSpec)
    return Job(id="j", state=JobState.QUEUED, spec=given, created_at=now(), queued_at=now(), origin=origin)


def files(directory: Path, **values: str) -> SecretDirectory:
    for name, value in values.items():
        (directory / name).write_text(value)
        (directory / name).chmod(0o600)
    return SecretDirectory(str(directory))


async def login(vault: Vault, host: str, password: str = "a password", **scope: list[str]) -> None:
    value = json.dumps({"username": "u", "password": password}).encode()
    await vault.put(host, value, kind=SecretKind.REGISTRY, **scope)


async def test_the_vault_before_the_files(tmp_path: Path) -> None:
    async with open_memory() as store:
        vault = await open_vault(store, new_key())
        await vault.put("both", b"vault", kind=SecretKind.BUILD)
        await vault.put("other", b"not named", kind=SecretKind.BUILD)
        await vault.put("file", b"of another kind", kind=SecretKind.RUN)
        directory = files(tmp_path, both="file", file="file")
        found = await enclosed(a_job(secrets=["both", "file", "nowhere"]), vault, directory)
        assert found.secrets == {"both": b"vault", "file": b"file"}
        assert found.failure is None
        assert "vault" not in repr(found)


async def test_scopes_rule_over_files_of_the_same_name(tmp_path: Path) -> None:
    async with open_memory() as store:
        vault = await open_vault(store, new_key())
        await vault.put("token", b"vault", kind=SecretKind.BUILD, sources=["app"])
        await login(vault, "a.example", sources=["app"])
        await login(vault, "b.example", repositories=["example.test/team/*"])
        await login(vault, "c.example", repositories=["example.test/others/*"])
        directory = files(tmp_path, token="file")
        own = await enclosed(a_job(Origin(source="app"), secrets=["token"]), vault, directory)
        assert own.secrets == {"token": b"vault"}
        assert sorted(own.logins) == ["a.example", "b.example"]
        for origin in (None, Origin(source="web")):
            other = await enclosed(a_job(origin, secrets=["token"]), vault, directory)
            assert other.failure is not None
            assert other.failure.code == "secret_not_permitted"
            assert (other.secrets, other.logins) == ({}, {})


async def test_outsiders_get_nothing(tmp_path: Path) -> None:
    async with open_memory() as store:
        vault = await open_vault(store, new_key())
        await vault.put("token", b"vault", kind=SecretKind.BUILD)
        await login(vault, "a.example")
        job = a_job(Origin(source="app", trusted=False), secrets=["token", "file"])
        found = await enclosed(job, vault, files(tmp_path, file="file"))
        assert (found.secrets, found.logins, found.failure) == ({}, {}, None)


async def test_a_wrong_key_fails_only_jobs_that_need_it(tmp_path: Path) -> None:
    async with open_memory() as store:
        right = await open_vault(store, new_key())
        await right.put("token", b"vault", kind=SecretKind.BUILD)
        await login(right, "a.example")
        wrong = await open_vault(store, new_key())
        found = await enclosed(a_job(), wrong, files(tmp_path))
        assert (found.logins, found.failure) == ({}, None)
        needs = await enclosed(a_job(secrets=["token"]), wrong, files(tmp_path, token="file"))
        assert needs.failure is not None
        assert (needs.failure.code, needs.failure.retryable) == ("secret_locked", False)
        assert needs.failure.advice


async def test_logins_are_bounded_and_those_that_are_named_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enclosure, "MOST_LOGINS", 3)
    async with open_memory() as store:
        vault = await open_vault(store, new_key())
        for number in range(5):
            await login(vault, f"r{number}.example")
        await login(vault, "docker.io")
        job = a_job(image="r4.example/team/app", cache_from=["alpine:3"])
        found = await enclosed(job, vault, files(tmp_path))
        assert sorted(found.logins) == ["docker.io", "r0.example", "r4.example"]
        monkeypatch.setattr(enclosure, "MOST_LOGINS", 64)
        monkeypatch.setattr(enclosure, "MOST_LOGIN_BYTES", 120)
        assert list((await enclosed(job, vault, files(tmp_path))).logins) == ["docker.io", "r4.example"]


@pytest.mark.parametrize(
    ("image", "host"),
    [
        ("alpine", "docker.io"),
        ("owner/app:1", "docker.io"),
        ("index.docker.io/owner/app", "docker.io"),
        ("ghcr.io/owner/app", "ghcr.io"),
        ("localhost/app", "localhost"),
        ("Host:5000/app", "host:5000"),
    ],
)
def test_hosts_of_images(image: str, host: str) -> None:
    assert host_of(image) == host
