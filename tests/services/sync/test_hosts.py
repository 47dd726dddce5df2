"""Hosts that prove who they are: a real sshd with its own key, and TLS with a certificate authority of one's own."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from blacktree.errors import StepFailed
from tests.parts.git_server import GitServer, git_server, make_repository
from tests.parts.ssh_server import SshServer, make_key, ssh_server
from tests.rpc.certificates import Authority
from tests.services.sync.conftest import Syncs

FILES: dict[str, str | bytes] = {"Dockerfile": "FROM scratch\n", "src/main.txt": "hello\n"}


async def fails(syncs: Syncs, repository: str) -> StepFailed:
    with pytest.raises(StepFailed) as caught:
        await syncs.sync(repository)
    assert caught.value.advice, caught.value
    return caught.value


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[SshServer]:
    with ssh_server(tmp_path / "sshd") as server:
        yield server


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "ours", FILES)


def trusting(syncs: Syncs, known: str, key: Path) -> None:
    """The worker's settings: this key, and these hosts."""
    file = syncs.path / "known hosts"
    file.write_text(known)
    syncs.config |= {"ssh_known_hosts_file": str(file), "ssh_key_file": str(key)}


async def test_a_clone_by_ssh_from_a_known_host(syncs: Syncs, sshd: SshServer, ours: Path) -> None:
    trusting(syncs, sshd.known, sshd.key)
    build = await syncs.sync(sshd.url(ours), ref="main")
    assert await syncs.files(build) == {"Dockerfile": b"FROM scratch\n", "src/main.txt": b"hello\n"}
    # And again, from the mirror and the host as it stands.
    assert (await syncs.sync(sshd.url(ours))).commit == build.commit


async def test_an_unknown_host_is_refused(syncs: Syncs, sshd: SshServer, ours: Path) -> None:
    trusting(syncs, "", sshd.key)
    error = await fails(syncs, sshd.url(ours))
    assert (error.code, error.again) == ("host_key_unknown", False)
    assert "ssh_known_hosts_file" in error.advice
    # Nor is it learnt by being asked.
    assert (syncs.path / "known hosts").read_text() == ""


async def test_a_host_with_another_key_than_the_known_one_is_refused(
    syncs: Syncs, sshd: SshServer, ours: Path, tmp_path: Path
) -> None:
    place = sshd.known.split()[0]
    trusting(syncs, f"{place} {make_key(tmp_path / 'other')}\n", sshd.key)
    error = await fails(syncs, sshd.url(ours))
    assert (error.code, error.again) == ("host_key_unknown", False)
    assert "another" in error.message or "known" in error.message


async def test_a_key_that_the_host_does_not_take(syncs: Syncs, sshd: SshServer, ours: Path, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    trusting(syncs, sshd.known, tmp_path / "stranger")
    error = await fails(syncs, sshd.url(ours))
    assert error.code == "credentials_needed"
    assert "ssh_key_file" in error.advice


async def test_a_repository_that_is_not_there_by_ssh(syncs: Syncs, sshd: SshServer, tmp_path: Path) -> None:
    trusting(syncs, sshd.known, sshd.key)
    assert (await fails(syncs, sshd.url(tmp_path / "nothing"))).code == "repository_not_found"


async def test_an_ssh_host_that_is_not_there(syncs: Syncs, sshd: SshServer, ours: Path) -> None:
    trusting(syncs, sshd.known, sshd.key)
    sshd.process.terminate()
    sshd.process.wait(40)
    error = await fails(syncs, sshd.url(ours))
    assert (error.code, error.again) == ("host_unreachable", True)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    directory = tmp_path / "authority"
    directory.mkdir()
    return Authority(directory, "ours")


@pytest.fixture(params=["127.0.0.1"])
def secure(tmp_path: Path, authority: Authority, request: pytest.FixtureRequest) -> Iterator[GitServer]:
    """A host behind TLS; its certificate is for 127.0.0.1."""
    root = tmp_path / "secure"
    root.mkdir()
    make_repository(root / "app", FILES)
    certificate = authority.issue("host")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate_file, certificate.key_file)
    with git_server(root, context, request.param) as server:
        yield server


async def test_a_clone_from_a_host_of_an_authority_that_the_worker_trusts(
    syncs: Syncs, secure: GitServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_SSL_CAINFO", str(authority.file))
    secure.login = "someone:let-me-in"
    credentials = syncs.path / "credentials"
    credentials.write_text(f"https://someone:let-me-in@127.0.0.1:{secure.port}\n")
    credentials.chmod(0o600)
    syncs.config["git_credentials_file"] = str(credentials)
    build = await syncs.sync(f"{secure.url}/app")
    assert (await syncs.files(build))["src/main.txt"] == b"hello\n"
    assert secure.url.startswith("https://")


@pytest.mark.parametrize("trusted", ["", "another"])
async def test_a_certificate_of_an_unknown_authority_is_refused(
    syncs: Syncs, secure: GitServer, trusted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no credential is shown to whoever that is."""
    monkeypatch.delenv("GIT_SSL_CAINFO", raising=False)
    if trusted:
        monkeypatch.setenv("GIT_SSL_CAINFO", str(Authority(syncs.path, trusted).file))
    error = await fails(syncs, f"{secure.url}/app")
    assert (error.code, error.again) == ("tls_failed", False)
    assert "GIT_SSL_CAINFO" in error.advice
    assert secure.requests == []


@pytest.mark.parametrize("secure", ["127.0.0.2"], indirect=True)
async def test_a_certificate_for_another_name_is_refused(
    syncs: Syncs, secure: GitServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_SSL_CAINFO", str(authority.file))
    error = await fails(syncs, f"{secure.url}/app")
    assert (error.code, error.again) == ("tls_failed", False)
    assert secure.requests == []
