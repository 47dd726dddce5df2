"""Bytes of a terminal become keys: a character is itself, others have a name such as `up`, `page down`, `^c`. Pure."""

import codecs

_CSI = {
    "A": "up",
    "B": "down",
    "C": "right",
    "D": "left",
    "H": "home",
    "F": "end",
    "Z": "back tab",
    "1~": "home",
    "7~": "home",
    "4~": "end",
    "8~": "end",
    "5~": "page up",
    "6~": "page down",
    "3~": "delete",
}
_PLAIN = {"\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\x08": "backspace", "\x1b": "escape"}
_LONGEST = 32


class Keys:
    """`feed` what was read; `flush` when nothing follows for a moment: an escape may be the key or a beginning."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""

    @property
    def waiting(self) -> bool:
        """Whether what was read so far may go on."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[str]:
        """The keys that are whole now."""
        self._rest += self._decode(data)
        return self._taken(final=False)

    def flush(self) -> list[str]:
        """The keys that an unfinished sequence is when nothing more comes."""
        return self._taken(final=True)

    def _taken(self, *, final: bool) -> list[str]:
        keys: list[str] = []
        while self._rest:
            length, key = _first(self._rest, final)
            if not length:
                break
            self._rest = self._rest[length:]
            if key:
                keys.append(key)
        return keys


def _first(text: str, final: bool) -> tuple[int, str]:
    """The first key and how many characters it is; 0 if it may go on, and no key for what means nothing."""
    char = text[0]
    if char != "\x1b":
        if char in _PLAIN:
            return 1, _PLAIN[char]
        if char < " ":
            return 1, f"^{chr(ord(char) + 64).lower()}"
        return 1, char if char.isprintable() else ""
    if len(text) == 1:
        return (1, "escape") if final else (0, "")
    if text[1] == "O":
        return (3, _CSI.get(text[2], "")) if len(text) > 2 else (2 * final, "")
    if text[1] != "[":
        # A key with Alt, or an escape and then a key: the escape is what it begins with.
        return 1, "escape"
    for index in range(2, min(len(text), _LONGEST)):
        if "@" <= text[index] <= "~":
            body = text[2 : index + 1]
            # With a modifier: `1;5A`.
            return index + 1, _CSI.get(body) or _CSI.get(body[-1] if ";" in body else "", "")
    return (len(text), "") if final or len(text) >= _LONGEST else (0, "")
