"""Machines of one test: network namespaces on a switch of their own; the machine's own network is not touched."""

import ctypes
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CLONE_NEWNET = 0x40000000  # sched.h


class Network:
    """The test's thread, and what it starts, live on the machine with the switch, 10.93.0.1; `machines` beside it."""

    def __init__(self, names: list[str]) -> None:
        mark = secrets.token_hex(3)
        self._hub = f"bt{mark}"
        self.machines = {name: f"{self._hub}-{name}" for name in names}
        self.addresses = {name: f"10.93.0.{number}" for number, name in enumerate(names, 2)}
        self.hub_address = "10.93.0.1"

    def make(self) -> None:
        hub = self._hub
        for space in (hub, *self.machines.values()):
            _ip("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", hub, "link", "add", "switch", "type", "bridge")
        _ip("-n", hub, "address", "add", f"{self.hub_address}/24", "dev", "switch")
        _ip("-n", hub, "link", "set", "switch", "up")
        for name, space in self.machines.items():
            _ip("-n", hub, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("-n", hub, "link", "set", name, "master", "switch", "up")
            _ip("-n", space, "address", "add", f"{self.addresses[name]}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")

    def on(self, name: str) -> list[str]:
        """The words before a command that is to run on this machine."""
        return ["ip", "netns", "exec", self.machines[name]]

    def cut(self, name: str) -> None:
        """Pull the cable at the switch: both ends keep their link and hear nothing, not even an error."""
        _ip("-n", self._hub, "link", "set", name, "nomaster")

    def mend(self, name: str) -> None:
        _ip("-n", self._hub, "link", "set", name, "master", "switch")

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread, and every process that it starts, on the machine with the switch."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            there = os.open(f"/run/netns/{self._hub}", os.O_RDONLY)
            try:
                _enter(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _enter(before)
        finally:
            os.close(before)

    def remove(self) -> None:
        for space in (*self.machines.values(), self._hub):
            subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)


@contextmanager
def open_network(*names: str) -> Iterator[Network]:
    """Machines of these names. Skips the test where the kernel, or the user, cannot make them."""
    network = Network(list(names))
    try:
        try:
            network.make()
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', '') or error}")
        with network.inside():
            yield network
    finally:
        if shutil.which("ip"):
            network.remove()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], capture_output=True, text=True, check=True)


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
