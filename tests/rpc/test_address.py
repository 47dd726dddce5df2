"""Addresses are read strictly; sockets get the right rights; stale ones are replaced, living ones are not."""

import os
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blacktree.errors import BadRequest
from blacktree.rpc import address as addresses


@pytest.mark.parametrize("text", ["127.0.0.1:0", "[::1]:5051", "farm.example:65535", "unix:/run/a.sock"])
def test_an_address_reads_and_writes_the_same(text: str) -> None:
    assert str(addresses.parse(text)) == text


@pytest.mark.parametrize("text", ["", "host", "host:", ":80", "host:65536", "::1:80", "unix:relative", "unix:/a\0b"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        addresses.parse(text)
    assert caught.value.code == "invalid_config"
    assert caught.value.advice


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        addresses.parse(text)
    except BadRequest:
        pass


def test_a_path_that_is_too_long_says_so() -> None:
    with pytest.raises(BadRequest, match="107"):
        addresses.parse("unix:/" + "a" * 107)


def test_a_socket_file_is_private_and_a_stale_one_replaced(tmp_path: Path) -> None:
    address = addresses.parse(f"unix:{tmp_path}/s")
    for sock in addresses.bind(address):
        sock.close()  # as after kill -9: the file stays
    (sock,) = addresses.bind(address)
    with sock:
        assert stat.S_IMODE(os.stat(address.path).st_mode) == 0o600
        with pytest.raises(BadRequest) as caught:
            addresses.bind(address)
        assert caught.value.code == "cannot_listen"


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("mine")
    with pytest.raises(BadRequest):
        addresses.bind(addresses.parse(f"unix:{tmp_path}/s"))
    assert (tmp_path / "s").read_text() == "mine"


def test_a_missing_directory_and_a_taken_port_have_advice(tmp_path: Path) -> None:
    with pytest.raises(BadRequest) as caught:
        addresses.bind(addresses.parse(f"unix:{tmp_path}/no/s"))
    assert caught.value.advice == "make the directory first"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(BadRequest) as caught:
            addresses.bind(addresses.parse(f"127.0.0.1:{taken.getsockname()[1]}"))
    assert "another program" in caught.value.advice


def test_only_our_own_socket_file_is_removed(tmp_path: Path) -> None:
    address = addresses.parse(f"unix:{tmp_path}/s")
    (sock,) = addresses.bind(address)
    mine = addresses.identity(address)
    sock.close()
    os.rename(address.path, address.path + ".old")
    Path(address.path).touch()
    addresses.release(address, mine)
    assert os.path.exists(address.path)
