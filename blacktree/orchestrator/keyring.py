"""`Keyring`: the keys that this farm has, and what it seals and opens with them."""

from collections.abc import Mapping
from pathlib import Path

from blacktree.cipher import Cipher, Key, Locked, new_key
from blacktree.errors import BadRequest, Unavailable
from blacktree.keyfile import KeyPlace, read_keys, write_keys

VALUES = "secret"
SEALS = "seal"

_NO_KEY = (
    "make a key with `blacktree secret new-key FILE`, name FILE in `orchestrator.secrets_key_file` (or give it as the"
    " systemd credential `secrets-key`), and start the farm again"
)


class Keyring:
    """Keys, the current one first. `values` seals secrets, `seals` whatever other parts keep for a while.

    `pinned`: the file that a rotation moved to; it goes before the place that is configured.
    `trouble`: why there is no key to work with, for a person; empty if there is one, or if none was ever given.
    """

    def __init__(self, place: KeyPlace) -> None:
        self.place = place
        self.pinned = ""
        self.trouble = ""
        self.keys: list[Key] = []
        self.values = Cipher({})
        self.seals = Cipher({})
        self._retired: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"Keyring({self.keys})"

    @property
    def what(self) -> str:
        """Where the current key is from."""
        return f"the file {self.pinned}" if self.pinned else self.place.what

    def read(self, pinned: str) -> None:
        """Read all of it anew. Blocking, quick. What cannot be read is a `trouble` and leaves what can."""
        self.pinned = pinned
        found: list[Key] = []
        troubles = []
        if pinned:
            try:
                found += read_keys(Path(pinned))
            except BadRequest as error:
                troubles.append(str(error))
        try:
            found += self.place.read()
        except BadRequest as error:
            if not (pinned and found):
                troubles.append(str(error))
        self.trouble = "; ".join(troubles)
        self.use(found)

    def use(self, keys: list[Key]) -> None:
        """These from now on."""
        self.keys = list(dict.fromkeys(keys))
        self.values = Cipher.of(self.keys, VALUES)
        own = {key.id: key.derived(SEALS) for key in self.keys}
        self.seals = Cipher(own | {name: key for name, key in self._retired.items() if name not in own})

    def retire(self, keys: Mapping[str, bytes]) -> None:
        """Further keys that open what was sealed for other parts before a rotation."""
        self._retired = dict(keys)
        self.use(self.keys)

    def need(self, *, may_make: bool) -> None:
        """See that there is a key to seal with; makes it where that is allowed. Blocking, quick.

        Raises `Locked` (code `secrets_key`) or `Unavailable` (code `no_secrets_key`), both with advice.
        """
        if self.keys:
            return
        if self.trouble:
            raise Locked(f"the farm's key cannot be used: {self.trouble}", code="secrets_key")
        if not (self.place.makes and self.place.path):
            raise Unavailable("this farm has no key for secrets", code="no_secrets_key", advice=_NO_KEY, again=False)
        if not may_make:
            raise Locked(
                f"the key that the farm's secrets are sealed with was in {self.place.path}, and is gone",
                code="secrets_key",
                advice="put that file back; or remove all secrets, and a new key is made",
            )
        write_keys(self.place.path, [new_key()], fresh=True)
        self.use(self.place.read())
