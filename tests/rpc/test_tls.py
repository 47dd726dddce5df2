"""TLS: who is let in, who is not, and what is said about files that do not fit."""

from pathlib import Path

import msgspec
import pytest
import trio

from blacktree.errors import BadRequest, NotAllowed, PeerLost
from blacktree.rpc.client import connect_worker
from blacktree.rpc.tls import Tls, client_context, require_tls, server_context
from tests.contracts.peer import worker_suite
from tests.rpc.certificates import Authority
from tests.rpc.house import TOKEN, house


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "farm-ca")


async def test_the_conversation_over_tls_with_client_certificates(authority: Authority) -> None:
    async with house() as here:
        address = await here.serve_worker(tls=authority.issue("worker"))
        async with connect_worker(address, join_token=TOKEN, tls=authority.issue("orchestrator")) as side:
            await worker_suite(side, here.worker)


async def test_who_has_no_certificate_or_another_ca_is_refused(authority: Authority, tmp_path: Path) -> None:
    server, good = authority.issue("worker"), authority.issue("orchestrator")
    stranger = msgspec.structs.replace(Authority(tmp_path, "other-ca").issue("stranger"), ca_file=good.ca_file)
    bare = Tls(ca_file=good.ca_file)
    distrustful = msgspec.structs.replace(good, ca_file=str(tmp_path / "other-ca.pem"))
    async with house() as here:
        address = await here.serve_worker(tls=server)
        for tls in (None, bare, stranger, distrustful):
            with trio.fail_after(40):
                async with connect_worker(address, join_token=TOKEN, tls=tls) as side:
                    with pytest.raises(PeerLost):
                        await side.ping()
        async with connect_worker(address, join_token=TOKEN, tls=good) as side:
            await side.ping()


async def test_a_tls_client_at_a_plaintext_server_is_told_within_time(authority: Authority) -> None:
    async with house() as here:
        address = await here.serve_worker()
        with trio.fail_after(40):
            async with connect_worker(address, join_token=TOKEN, tls=authority.issue("orchestrator")) as side:
                with pytest.raises(PeerLost):
                    await side.ping()
        async with connect_worker(address, join_token=TOKEN) as side:
            await side.ping()


async def test_a_name_that_is_not_in_the_certificate_is_refused(authority: Authority) -> None:
    async with house() as here:
        address = await here.serve_worker("127.0.0.2:0", tls=authority.issue("worker"))
        async with connect_worker(address, join_token=TOKEN, tls=authority.issue("orchestrator")) as side:
            with pytest.raises(PeerLost):
                await side.ping()


def test_files_that_do_not_fit_are_named(authority: Authority, tmp_path: Path) -> None:
    good, other = authority.issue("a"), authority.issue("b")
    garbage = tmp_path / "garbage"
    garbage.write_text("no pem")
    for tls, said in (
        (msgspec.structs.replace(good, key_file=str(tmp_path / "none")), "cannot read"),
        (msgspec.structs.replace(good, key_file=other.key_file), "KEY_VALUES_MISMATCH"),
        (msgspec.structs.replace(good, certificate_file=str(garbage)), "garbage"),
        (msgspec.structs.replace(good, ca_file=str(garbage)), "as CA"),
        (msgspec.structs.replace(good, ca_file=str(tmp_path)), str(tmp_path)),
    ):
        for make in (server_context, client_context):
            with pytest.raises(BadRequest, match=said) as caught:
                make(tls)
            assert caught.value.code == "invalid_config"
    with pytest.raises(BadRequest):
        server_context(Tls(ca_file=good.ca_file))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/a", "127.9.9.9:1"])
def test_plaintext_is_fine_on_this_machine(address: str) -> None:
    require_tls(address, None, False)


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "farm.example:1", "127.0.0.1.example:1"])
def test_plaintext_beyond_this_machine_must_be_allowed_by_name(address: str) -> None:
    with pytest.raises(NotAllowed, match="allow_plaintext_grpc"):
        require_tls(address, None, False)
    require_tls(address, None, True)
    for half in (Tls(certificate_file="a"), Tls(ca_file="b")):
        with pytest.raises(NotAllowed, match="TLS without a"):
            require_tls(address, half, False)
    require_tls(address, Tls(certificate_file="a", ca_file="b"), False)
