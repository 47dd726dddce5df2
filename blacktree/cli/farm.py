"""What `up` and `orchestrator` share: settings made whole, tokens in place, the door announced to clients here."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from blacktree.cli.state import JOIN_TOKEN_FILE, TOKEN_FILE, ensure_token, read_token, write_certificate, write_server
from blacktree.config import Config, Origins, default_state_directory
from blacktree.keyfile import KeyPlace, find_place, own_directory, take_variable

if TYPE_CHECKING:
    from blacktree.api.door import Door
    from blacktree.orchestrator.control import Control


def state_directory(config: Config, part: str) -> Path:
    """Where this farm remembers."""
    return Path(config.orchestrator.state_directory or default_state_directory(os.environ, part)).absolute()


def completed(config: Config, origins: Origins, state: Path, *, one_machine: bool) -> Config:
    """The settings with every file named. Makes the join token; the state directory must be ours.

    `one_machine`: local sources are on unless somebody switched them off by name.
    """
    changes: dict[str, Any] = {"state_directory": str(state)}
    if config.orchestrator.join_token_file:
        read_token(Path(config.orchestrator.join_token_file))
    else:
        ensure_token(state / JOIN_TOKEN_FILE)
        changes["join_token_file"] = str(state / JOIN_TOKEN_FILE)
    if not config.orchestrator.token_file:
        ensure_token(state / TOKEN_FILE)
        changes["token_file"] = str(state / TOKEN_FILE)
    if not config.orchestrator.secrets_directory:
        (state / "secrets").mkdir(mode=0o700, exist_ok=True)
        changes["secrets_directory"] = str(state / "secrets")
    if one_machine and origins["orchestrator", "allow_local_sources"] == "default":
        changes["allow_local_sources"] = True
    return msgspec.structs.replace(config, orchestrator=msgspec.structs.replace(config.orchestrator, **changes))


def key_places(config: Config, *, make: bool) -> Callable[[str], KeyPlace]:
    """Where a farm's key is, by the farm's id; takes the key out of the environment. `make`: `up` may make one.

    Raises `BadRequest` for a variable that holds no key.
    """
    setting, variable = config.orchestrator.secrets_key_file, take_variable(os.environ)
    state = Path(config.orchestrator.state_directory)

    def place(farm_id: str) -> KeyPlace:
        own = own_directory(os.environ) / f"secrets-{farm_id}.key" if make else None
        return find_place(setting and os.path.abspath(setting), variable, os.environ, own=own, apart=state)

    place("")
    return place


class AnnouncedDoor:
    """A door that leaves its address in the state directory once it is open."""

    def __init__(self, door: "Door", state: Path) -> None:
        self._door = door
        self._state = state
        self.url = ""

    def login_link(self) -> str:
        """A page that lets one browser in, once."""
        return self._door.login_link()

    async def run(self, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            bound = await nursery.start(self._door.run)
            self.url = reachable_url(bound, self._door.scheme)
            self._leave_certificate()
            write_server(self._state, self.url)
            task_status.started(bound)

    def reload(self) -> None:
        """As any door."""
        self._door.reload()
        self._leave_certificate()

    def _leave_certificate(self) -> None:
        found = self._door.certificate
        write_certificate(self._state, "" if found is None else found.own())


def announced_doors(
    config: Config, state: Path, opened: list[AnnouncedDoor]
) -> Callable[["Control"], Sequence[AnnouncedDoor]]:
    """The doors of a farm, for the daemon to open; each is also put into `opened`."""
    from blacktree.api.door import Door

    token = read_token(Path(config.orchestrator.token_file))

    def doors(control: "Control") -> Sequence[AnnouncedDoor]:
        door = Door(control, config.door, listen=config.orchestrator.listen, token=token)
        opened.append(AnnouncedDoor(door, state))
        return opened

    return doors


def reachable_url(bound: Sequence[Any], scheme: str = "http") -> str:
    """An address that a client on this machine can use, from the addresses that were bound.

    >>> reachable_url([("0.0.0.0", 8080)])
    'http://127.0.0.1:8080'
    """
    first = bound[0]
    host, port = first[:2] if isinstance(first, tuple) else str(first).rsplit(":", 1)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host.strip("[]"), host.strip("[]"))
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
