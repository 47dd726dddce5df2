"""Known secret values become `***` in whatever passes, also encoded and also when split over chunks."""

import base64
import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote_from_bytes

MASK = b"***"
SHORTEST_VALUE = 4  # bytes; shorter ones would mask half of every log and protect nothing
SHORTEST_LINE = 8  # bytes; of the single lines of a value that has many

_WRAPS = (64, 76)  # the columns at which openssl and base64(1) break their lines


def forms_of(value: bytes) -> set[bytes]:
    """Every form in which `value` is looked for; empty if it is too short.

    Raw, base64 (three alignments, standard and URL-safe, padded or not, wrapped), URL-encoded, JSON-escaped,
    and the single lines of a value that has many.
    """
    value = value.strip(b"\r\n")
    if len(value) < SHORTEST_VALUE:
        return set()
    forms = {value, *_base64(value), *_url(value), *_json(value)}
    lines = value.splitlines()
    if len(lines) > 1:
        forms |= {line for line in lines if len(line) >= SHORTEST_LINE}
    return {form for form in forms if len(form) >= SHORTEST_VALUE}


def _base64(value: bytes) -> Iterator[bytes]:
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + value)
        # Only the characters that no neighbouring byte has a bit in; six bits a character.
        core = encoded[-(-8 * shift // 6) : 8 * (shift + len(value)) // 6]
        pieces = [core]
        if shift == 0:
            pieces += [encoded, encoded.rstrip(b"=")]
            for width in _WRAPS:
                if len(encoded) > width:
                    rows = [encoded[at : at + width] for at in range(0, len(encoded), width)]
                    pieces += [row for row in rows if len(row) >= SHORTEST_LINE]
        for piece in pieces:
            yield piece
            yield piece.translate(bytes.maketrans(b"+/", b"-_"))


def _url(value: bytes) -> Iterator[bytes]:
    for safe in ("", "/"):
        upper = quote_from_bytes(value, safe=safe).encode()
        # The hex digits alone change case, so the parts between them stay as they are.
        first, *rest = upper.split(b"%")
        lower = b"%".join([first, *(part[:2].lower() + part[2:] for part in rest)])
        for form in (upper, lower):
            yield form
            yield form.replace(b"%20", b"+")


def _json(value: bytes) -> Iterator[bytes]:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return
    for ascii_only in (True, False):
        form = json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode()
        yield form
        yield form.replace(b"/", b"\\/")
        yield form.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026")  # as Go writes it


class Masker:
    """The known values of one attempt. Immutable; one for all of its streams.

    `ignored` counts the values that are too short (under `SHORTEST_VALUE` bytes) and therefore shown.
    """

    def __init__(self, values: Iterable[bytes]) -> None:
        given = list(values)
        self.ignored = sum(1 for value in given if len(value.strip(b"\r\n")) < SHORTEST_VALUE)
        forms: set[bytes] = set()
        for value in given:
            forms |= forms_of(value)
        self.forms = sorted(forms, key=len)
        self._heads = {form[:size] for form in forms for size in (1, 2, 3)}

    def __repr__(self) -> str:
        return f"Masker({len(self.forms)} forms)"

    def mask(self, data: bytes) -> bytes:
        """All of `data`, masked."""
        stream = self.stream()
        return stream.feed(data) + stream.finish()

    def mask_text(self, text: str) -> str:
        """As `mask`, for messages."""
        return self.mask(text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace") if self.forms else text

    def stream(self) -> "MaskStream":
        """A masker of one stream that comes in chunks."""
        return MaskStream(self)

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where values are, as sorted, disjoint `(start, end)`; what overlaps is one span."""
        found: list[tuple[int, int]] = []
        for form in self.forms:
            at = data.find(form)
            while at >= 0:
                found.append((at, at + len(form)))
                at = data.find(form, at + 1)
        if len(found) < 2:
            return found
        found.sort()
        merged = [found[0]]
        for start, end in found[1:]:
            last_start, last_end = merged[-1]
            if start < last_end:
                merged[-1] = (last_start, max(end, last_end))
            else:
                merged.append((start, end))
        return merged

    def held_from(self, data: bytes) -> int:
        """The first place from which the end of `data` could still become a value; its length if none."""
        size = best = len(data)
        for length in (1, 2, 3):
            if data[-length:] in self._heads and length <= size:
                best = size - length
        for form in self.forms:
            at = data.find(form[:SHORTEST_VALUE], max(0, size - len(form) + 1), best + SHORTEST_VALUE - 1)
            while 0 <= at < best:
                if form.startswith(data[at:]):
                    best = at
                    break
                at = data.find(form[:SHORTEST_VALUE], at + 1, best + SHORTEST_VALUE - 1)
        return best


class MaskStream:
    """One stream. What comes out, joined, is what masking the whole at once gives; at most one value is held back."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._held = b""
        self._covered = 0  # so many of the held bytes belong to a span whose mask is already out

    @property
    def pending(self) -> bool:
        """Whether bytes are held back because they could become a value."""
        return bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """What can be told of `data` and of what was held, masked."""
        if not self._masker.forms or not data:
            return data
        data = self._held + data if self._held else data
        return self._out(data, self._masker.held_from(data))

    def finish(self) -> bytes:
        """What was held back. The stream is as new afterwards."""
        return self._out(self._held, len(self._held))

    def _out(self, data: bytes, until: int) -> bytes:
        spans = self._masker.spans(data)
        if not spans and not self._covered:
            self._held = data[until:] if until < len(data) else b""
            return data if until == len(data) else data[:until]
        parts: list[bytes] = []
        shown = self._covered
        for start, end in spans:
            if start >= until:
                break
            if start >= shown:
                parts += (data[shown:start], MASK)
            shown = max(shown, end)
        if shown < until:
            parts.append(data[shown:until])
        self._covered = max(0, shown - until)
        self._held = data[until:]
        return b"".join(parts)
