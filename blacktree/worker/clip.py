"""Words cut to a number of bytes. Pure."""

from collections.abc import Iterable


def clip(text: str, most_bytes: int) -> str:
    """The beginning of the text, at most so many bytes of UTF-8 of it; no character is cut in two."""
    return text.encode("utf-8", "replace")[:most_bytes].decode("utf-8", "ignore")


def clip_lines(lines: Iterable[str], most_bytes: int) -> list[str]:
    """The last lines, at most so many bytes of UTF-8 of them; the first of these may be cut short."""
    kept: list[str] = []
    for line in reversed(list(lines)):
        piece = clip(line, most_bytes)
        most_bytes -= len(piece.encode())
        if line and not piece:
            break
        kept.append(piece)
        if piece != line:
            break
    return kept[::-1]
