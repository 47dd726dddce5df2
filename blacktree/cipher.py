"""Sealing values with a key that lies elsewhere: AES-256-GCM, each body bound to what it is about.

A body is a version byte, the id of its key (8 bytes), a nonce (12 bytes) and the ciphertext with its tag (NIST SP
800-38D). Keys are 32 random bytes, written as one line of base64; what is sealed with them uses keys derived from
them (HKDF-SHA256, RFC 5869), one for each purpose.
"""

import base64
import binascii
import os
from collections.abc import Iterable, Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from blacktree.errors import BadRequest, Conflict

KEY_BYTES = 32
_VERSION = b"\x01"
_ID_BYTES = 8
_NONCE_BYTES = 12
_HEAD_BYTES = len(_VERSION) + _ID_BYTES + _NONCE_BYTES


class Locked(Conflict):
    """The key at hand does not fit, or there is none. Nothing is lost: the right key opens it."""

    default_code = "secret_locked"


class Key:
    """A master key. `id` (16 hex digits) tells nothing about it. Never printed."""

    __slots__ = ("_master", "id")

    def __init__(self, master: bytes) -> None:
        if len(master) != KEY_BYTES:
            raise BadRequest(f"a key has {KEY_BYTES} bytes", code="invalid_key")
        self._master = master
        self.id = self.derived("id", _ID_BYTES).hex()

    def __repr__(self) -> str:
        return f"Key({self.id})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def derived(self, purpose: str, length: int = KEY_BYTES) -> bytes:
        """The key for one purpose."""
        return HKDF(SHA256(), length, salt=None, info=f"blacktree {purpose}".encode()).derive(self._master)

    def text(self) -> str:
        """The line that holds it in a file."""
        return base64.urlsafe_b64encode(self._master).decode()


def new_key() -> Key:
    """A fresh one, from the kernel's randomness."""
    return Key(os.urandom(KEY_BYTES))


def parse_keys(text: str) -> list[Key]:
    """The keys in this text, one a line (or a word), the current one first; at least one. Raises `BadRequest`."""
    keys = []
    for word in text.split():
        try:
            master = base64.b64decode(word.translate(str.maketrans("-_", "+/")), validate=True)
        except (binascii.Error, ValueError):
            master = b""
        if len(master) != KEY_BYTES:
            raise BadRequest(
                f"not a key: one line of base64 that stands for {KEY_BYTES} random bytes is wanted",
                code="invalid_key",
                advice="make one with `blacktree secret new-key FILE`",
            )
        keys.append(Key(master))
    if not keys:
        raise BadRequest("there is no key in it", code="invalid_key", advice="`blacktree secret new-key FILE`")
    return list(dict.fromkeys(keys))


class Cipher:
    """Seals with the first key and opens with each of them. `keys`: id → the key for this purpose, current first."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)

    @classmethod
    def of(cls, keys: Iterable[Key], purpose: str) -> "Cipher":
        """For one purpose of these master keys."""
        return cls({key.id: key.derived(purpose) for key in keys})

    @property
    def current(self) -> str:
        """The id of the key that seals; empty if there is none."""
        return next(iter(self._keys), "")

    def __repr__(self) -> str:
        return f"Cipher({', '.join(self._keys)})"

    def opens(self, body: bytes) -> bool:
        """Whether the key of this body is here."""
        return key_id(body) in self._keys

    def seal(self, value: bytes, about: bytes) -> bytes:
        """The value's body. `about` is not in it; the same is needed to open it. Raises `Locked` without a key."""
        if not self._keys:
            raise Locked("there is no key to seal with", code="no_secrets_key")
        head = _VERSION + bytes.fromhex(self.current)
        nonce = os.urandom(_NONCE_BYTES)
        return head + nonce + AESGCM(self._keys[self.current]).encrypt(nonce, value, head + about)

    def unseal(self, body: bytes, about: bytes) -> bytes:
        """The value. Raises `Locked`: `secret_locked` (another key's), `secret_damaged` (changed, or about other)."""
        key = self._keys.get(key_id(body))
        if key is None:
            raise Locked(f"sealed with the key {key_id(body) or '(none)'}, which is not here")
        head = body[: len(_VERSION) + _ID_BYTES]
        try:
            return AESGCM(key).decrypt(body[len(head) : _HEAD_BYTES], body[_HEAD_BYTES:], head + about)
        except InvalidTag:
            raise Locked("does not fit its seal: it was changed or moved", code="secret_damaged") from None


def key_id(body: bytes) -> str:
    """Which key a body was sealed with; empty if it is none of ours."""
    if len(body) < _HEAD_BYTES or body[:1] != _VERSION:
        return ""
    return body[1 : 1 + _ID_BYTES].hex()
