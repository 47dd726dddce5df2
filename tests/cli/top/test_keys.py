"""What is typed, in whatever pieces it arrives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blacktree.cli.top.keys import Keys


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"\r\n\t\x7f", ["enter", "enter", "tab", "backspace"]),
        (b"\x03\x1a\x0c", ["^c", "^z", "^l"]),
        (b"\x1b[A\x1b[B\x1bOA", ["up", "down", "up"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1b[4~", ["page up", "page down", "home", "end"]),
        (b"\x1b[1;5B", ["down"]),
        (b"\x1b[200~x\x1b[99~y", ["x", "y"]),
        ("é漢".encode(), ["é", "漢"]),
        (b"\xffa", ["\ufffd", "a"]),
        (b"\x1bq", ["escape", "q"]),
        (b"\x1b\x1b[A", ["escape", "up"]),
    ],
)
def test_keys(data: bytes, keys: list[str]) -> None:
    assert Keys().feed(data) == keys
    piecemeal = Keys()
    assert [key for byte in data for key in piecemeal.feed(bytes([byte]))] == keys


def test_an_escape_alone_is_the_key_when_nothing_follows() -> None:
    keys = Keys()
    assert keys.feed(b"\x1b") == []
    assert keys.waiting
    assert keys.flush() == ["escape"]
    assert not keys.waiting
    assert keys.feed(b"\x1b[") == keys.flush() == []
    assert keys.feed(b"j") == ["j"]


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_nothing_is_left_over_or_unprintable(pieces: list[bytes]) -> None:
    keys = Keys()
    found = [key for piece in pieces for key in keys.feed(piece)] + keys.flush()
    assert not keys.waiting
    assert all(key.isprintable() for key in found)
