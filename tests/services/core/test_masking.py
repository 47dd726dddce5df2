"""Secrets do not pass, in any form and any split."""

import base64
import json
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blacktree.services.core.masking import Masker, forms_of

VALUES = st.binary(min_size=4, max_size=24).filter(lambda value: b"*" not in value and len(value.strip(b"\r\n")) >= 4)
SMALL = st.text(alphabet="ab", min_size=4, max_size=7).map(str.encode)


def in_chunks(masker: Masker, data: bytes, places: list[int]) -> bytes:
    stream = masker.stream()
    edges = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    out = b"".join(stream.feed(data[start:end]) for start, end in pairwise(edges))
    out += stream.finish()
    assert not stream.pending
    return out


@given(st.data(), st.lists(VALUES, min_size=1, max_size=3), st.lists(st.integers(0, 400), max_size=12))
def test_no_form_of_a_value_passes(data: st.DataObject, values: list[bytes], places: list[int]) -> None:
    masker = Masker(values)
    form = st.sampled_from(masker.forms)
    noise = st.binary(max_size=12).map(lambda some: some.replace(b"*", b""))
    text = b"".join(data.draw(st.lists(st.one_of(form, noise), max_size=8)))
    out = in_chunks(masker, text, places)
    assert out == masker.mask(text)
    assert [form for form in masker.forms if form in out] == []


@given(st.lists(SMALL, min_size=1, max_size=3), st.text(alphabet="abc", max_size=60), st.lists(st.integers(0, 60)))
def test_the_split_does_not_matter_where_values_overlap(values: list[bytes], text: str, places: list[int]) -> None:
    masker = Masker(values)
    assert in_chunks(masker, text.encode(), places) == masker.mask(text.encode())


@given(VALUES, st.binary(max_size=7), st.binary(max_size=7))
def test_base64_is_seen_at_every_alignment(value: bytes, before: bytes, after: bytes) -> None:
    value = value.strip(b"\r\n")
    masker = Masker([value])
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        shown = masker.mask(encode(before + value + after))
        assert b"***" in shown
        # At each side one character that it shares with its neighbour, and the padding.
        assert len(shown) <= len(encode(before + value + after)) - len(value) * 8 // 6 + 1 + 3 + 2


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: quote(text, safe=""),
        lambda text: quote(text, safe="").replace("%2F", "%2f").replace("%3C", "%3c").replace("%C3%A9", "%c3%a9"),
        quote,
        quote_plus,
        lambda text: json.dumps(text),
        lambda text: json.dumps(text, ensure_ascii=False),
        lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
    ],
)
def test_common_encodings(encode) -> None:
    secret = 'pass word/é<"q"'
    line = f"curl -d {encode(secret)} there"
    masked = Masker([secret.encode()]).mask_text(line)
    assert "***" in masked
    assert "pass" not in masked
    assert masked.endswith(" there")


def test_a_key_of_many_lines_is_masked_line_by_line() -> None:
    key = b"-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\nshort\n-----END KEY-----\n"
    out = Masker([key]).mask(b"> MIIEvQIBADANBgkq\r\n> hkiG9w0BAQEFAASC\r\n> short\r\n")
    assert out == b"> ***\r\n> ***\r\n> short\r\n"
    assert Masker([key]).mask(b"[" + key + b"]") == b"[***\n]"
    wrapped = base64.encodebytes(key)
    assert all(len(line) < 8 for line in Masker([key]).mask(wrapped).splitlines()[:-1])


def test_short_values_are_counted_and_shown() -> None:
    masker = Masker([b"abc", b"a\n", b""])
    assert masker.ignored == 3
    assert masker.mask(b"abc a") == b"abc a"
    assert forms_of(b"abc") == set()


def test_only_what_could_become_a_value_is_held() -> None:
    stream = Masker([b"hunter22"]).stream()
    assert stream.feed(b"the word is hunt") == b"the word is "
    assert stream.pending
    assert stream.feed(b"ing\n") == b"hunting\n"
    assert not stream.pending
    assert stream.feed(b"hun") + stream.feed(b"ter22.") == b"***."


def test_without_values_everything_passes_as_it_is() -> None:
    chunk = b"some bytes"
    assert Masker([]).stream().feed(chunk) is chunk


def test_nothing_shows_the_values() -> None:
    assert "hunter22" not in repr(Masker([b"hunter22"]))
