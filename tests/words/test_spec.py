"""Specs as values."""

import msgspec

from blacktree.spec import JobSpec


def test_what_is_read_back_is_written_alike() -> None:
    """A result that is told again after a restart must be the same message, byte by byte."""
    written = msgspec.json.encode(JobSpec(repository="https://example.org/app.git"))
    assert msgspec.json.encode(msgspec.json.decode(written, type=JobSpec)) == written
