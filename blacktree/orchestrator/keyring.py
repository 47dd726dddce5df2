"""`Keyring`: the keys that this farm has, and what it seals and opens with them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from blacktree.cipher import Cipher, Key, Locked, new_key
from blacktree.errors import BadRequest
from blacktree.keyfile import VARIABLE, KeyPlace, read_keys, write_keys

VALUES = "secret"
SEALS = "seal"

_NO_KEY = (
    "make a key with `blacktree secret new-key FILE`, name FILE in `orchestrator.secrets_key_file` (or give it as the"
    " systemd credential `secrets-key`), and start the farm again"
)


class Keyring:
    """Keys, the current one first. `values` seals secrets, `seals` whatever other parts keep for a while.

    `pinned`: files that rotations moved to, the newest first; they go before the place that is configured.
    `trouble`: why there is no key to work with, for a person; empty if there is one, or if none was ever given.
    Everything here that touches a file blocks, for a moment.
    """

    def __init__(self, place: KeyPlace) -> None:
        self.place = place
        self.pinned: tuple[str, ...] = ()
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
        return f"the file {self.pinned[0]}" if self.pinned else self.place.what

    @property
    def _own_file(self) -> Path | None:
        """The file that we may put another key into."""
        if self.pinned:
            return Path(self.pinned[0])
        return self.place.path if self.place.writes else None

    def read(self, pinned: Sequence[str]) -> None:
        """Read all of it anew. What cannot be read is a `trouble` and leaves what can."""
        self.pinned = tuple(pinned)
        found: list[Key] = []
        troubles = []
        for path in self.pinned:
            try:
                found += read_keys(Path(path), apart=self.place.apart)
            except BadRequest as error:
                troubles.append(str(error))
        try:
            configured = self.place.read()
        except BadRequest as error:
            configured = []
            if not found:
                troubles.append(str(error))
        if configured and found and configured[0] == found[0]:
            # The operator has named the new file meanwhile.
            self.pinned = ()
        self.trouble = "; ".join(troubles)
        self.use([*found, *configured])

    def use(self, keys: Sequence[Key]) -> None:
        """These from now on."""
        self.keys = list(dict.fromkeys(keys))
        self.values = Cipher.of(self.keys, VALUES)
        own = self._own_seals()
        self.seals = Cipher(own | {name: key for name, key in self._retired.items() if name not in own})

    def _own_seals(self) -> dict[str, bytes]:
        return {key.id: key.derived(SEALS) for key in self.keys}

    def retire(self, keys: Mapping[str, bytes]) -> None:
        """Further keys that open what was sealed for other parts before a rotation."""
        self._retired = dict(keys)
        self.use(self.keys)

    def old_seals(self) -> dict[str, bytes]:
        """All keys that open such things, but the current one's."""
        own = self._own_seals()
        own.pop(self.values.current, None)
        return self._retired | own

    def need(self, *, may_make: bool) -> None:
        """See that there is a key to seal with; makes it where that is allowed.

        Raises `Locked` (code `secrets_key` or `no_secrets_key`) with advice.
        """
        if self.trouble:
            raise Locked(f"the farm's key cannot be used: {self.trouble}", code="secrets_key")
        if self.keys:
            return
        if not (self.place.makes and self.place.path):
            raise Locked("this farm has no key for secrets", code="no_secrets_key", advice=_NO_KEY)
        if not may_make:
            raise Locked(
                f"the key that the farm's secrets are sealed with was in {self.place.path}, and is gone",
                code="secrets_key",
                advice="put that file back; or remove all secrets, and a new key is made",
            )
        write_keys(self.place.path, [new_key()], fresh=True)
        self.use(self.place.read())

    def move(self, new_key_file: str) -> tuple[str, ...]:
        """The first step of a rotation: another key before those that are here; answers the files to be pinned.

        With several keys already it goes on with the first. Both the old and the new one are in files (or where they
        came from) when this returns. Raises `BadRequest`.
        """
        if new_key_file:
            if not Path(new_key_file).is_absolute():
                raise BadRequest(f"{new_key_file!r} is not an absolute path", path="new_key_file")
            fresh = read_keys(Path(new_key_file), apart=self.place.apart)
            self.use([*fresh, *self.keys])
            return (new_key_file, *(path for path in self.pinned if path != new_key_file))
        own = self._own_file
        found = self.keys if own is None else read_keys(own)
        if len(found) > 1:
            self.use([*found, *self.keys])
            return self.pinned
        if own is None:
            raise BadRequest(
                f"the farm cannot put a new key into {self.what}",
                code="secrets_key",
                advice="name a file for it, on the orchestrator's machine: `blacktree secret rotate-key --new-key-file"
                " FILE`",
            )
        try:
            write_keys(own, [new_key(), *self.keys])
        except BadRequest as error:
            advice = "name another file, on the orchestrator's machine: `blacktree secret rotate-key --new-key-file F`"
            raise BadRequest(error.message, code=error.code, advice=advice) from None
        self.use(read_keys(own))
        return self.pinned

    def settle(self, pinned: Sequence[str]) -> str:
        """The last step, when nothing needs the old keys any more; answers what is left for the operator."""
        self.pinned = tuple(pinned[:1])
        current = self.keys[:1]
        own = self._own_file
        if own is not None and len(read_keys(own)) > 1:
            write_keys(own, current)
        self.use(current)
        if own is None:
            return f"take the old key out of {self.place.what}: the first one is used alone now"
        if self.pinned and self.place.path != own:
            instead = f" and remove {VARIABLE}" if self.place.fixed else ""
            return (
                f"set `orchestrator.secrets_key_file` to {own}{instead}; the farm keeps to that file, the old key is"
                " not needed any more"
            )
        return ""
