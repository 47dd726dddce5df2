"""A block of a segment file: a header that says what it holds and how to check it, then the records.

The header is 45 bytes, little-endian: magic `BTB1`, first number (u64), numbers (u32), first byte in the plain log
(u64), bytes there (u32), payload length (u32), flags (u8, 1: deflated), CRC-32 of the payload (u32), CRC-32 of the
header so far (u32). The payload is the msgpack of the records.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import msgspec

from blacktree.errors import TooLarge
from blacktree.event import Lines, Record, total_span
from blacktree.storage.cut import plain, split

BLOCK_BYTES = 64 * 1024
"""About how much text a block holds at most, so that reading one needs little memory."""

_HEADER = struct.Struct("<4sQIQIIBI")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size
_MAGIC = b"BTB1"
_DEFLATED = 1
_MOST_PAYLOAD = 16 * 1024 * 1024

encode_records = msgspec.msgpack.Encoder().encode
decode_records = msgspec.msgpack.Decoder(list[Record]).decode
decode_record = msgspec.msgpack.Decoder(Record).decode


class Block(msgspec.Struct, frozen=True):
    """What a header says, and where its payload lies in the file."""

    first_seq: int
    span: int
    text_first: int
    text_length: int
    length: int
    flags: int
    crc: int
    offset: int

    @property
    def end_seq(self) -> int:
        """The number after the last one in here."""
        return self.first_seq + self.span

    @property
    def text_end(self) -> int:
        """The byte of the plain log after the last one in here."""
        return self.text_first + self.text_length

    @property
    def end(self) -> int:
        """The file offset after this block."""
        return self.offset + HEADER_BYTES + self.length


def in_blocks(records: Iterable[Record], most_bytes: int = BLOCK_BYTES) -> Iterator[list[Record]]:
    """The records dealt into blocks of about `most_bytes` of text; large `Lines` are split."""
    block: list[Record] = []
    size = 0
    for record in records:
        for piece in split(record, most_bytes):
            length = len(piece.text) if type(piece) is Lines else 128
            if block and size + length > most_bytes:
                yield block
                block, size = [], 0
            block.append(piece)
            size += length
    if block:
        yield block


def frame(first_seq: int, text_first: int, records: Sequence[Record], *, deflate: bool = False) -> tuple[bytes, int]:
    """The block as bytes, and how much plain text it holds."""
    text_length = sum(len(plain(record)) for record in records)
    payload = encode_records(records)
    if len(payload) > _MOST_PAYLOAD:
        raise TooLarge("a record of a job's log is larger than 16 MiB", path="records")
    if deflate:
        payload = zlib.compress(payload, 6)
    head = _HEADER.pack(
        _MAGIC,
        first_seq,
        total_span(records),
        text_first,
        text_length,
        len(payload),
        _DEFLATED if deflate else 0,
        zlib.crc32(payload),
    )
    return b"".join((head, _CRC.pack(zlib.crc32(head)), payload)), text_length


def block_at(file: BinaryIO, offset: int) -> Block | None:
    """The header at this offset, or None if there is no sound one."""
    file.seek(offset)
    head = file.read(HEADER_BYTES)
    if (
        len(head) < HEADER_BYTES
        or head[:4] != _MAGIC
        or _CRC.unpack_from(head, _HEADER.size)[0] != zlib.crc32(head[: _HEADER.size])
    ):
        return None
    _, first_seq, span, text_first, text_length, length, flags, crc = _HEADER.unpack_from(head)
    if length > _MOST_PAYLOAD:
        return None
    return Block(first_seq, span, text_first, text_length, length, flags, crc, offset)


def records_of(file: BinaryIO, block: Block) -> list[Record] | None:
    """The block's records, or None if its payload is not what was written."""
    file.seek(block.offset + HEADER_BYTES)
    payload = file.read(block.length)
    if len(payload) < block.length or zlib.crc32(payload) != block.crc:
        return None
    try:
        return decode_records(zlib.decompress(payload) if block.flags & _DEFLATED else payload)
    except (zlib.error, msgspec.MsgspecError):
        return None
