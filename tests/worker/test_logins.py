"""The farm's logins before the worker's own, Docker Hub by all of its names, and none of either for outsiders."""

import base64

import msgspec

from blacktree.providers.base import Login
from blacktree.rpc.replica import RegistryLogin
from blacktree.services.core.masking import Masker
from blacktree.worker.logins import login_for, to_hide
from tests.parts.orchestrator_side import an_assignment

OWN = Login("worker", "own password")


def test_the_farm_s_first() -> None:
    logins = {
        "docker.io": RegistryLogin(username="hub", password="hub password"),
        "registry.example:5000": RegistryLogin(username="u", password="farm password"),
    }
    assignment = msgspec.structs.replace(an_assignment(), logins=logins)
    asked: list[str] = []

    def own(host: str) -> Login | None:
        asked.append(host)
        return OWN

    login = login_for(assignment, own)
    for host in ("registry-1.docker.io", "index.docker.io", "docker.io", "https://index.docker.io/v1/"):
        assert login(host) == Login("hub", "hub password")
    assert login("REGISTRY.example:5000") == Login("u", "farm password")
    assert asked == []
    for host in ("registry.example", "no host at all"):
        assert login(host) == OWN
    assert asked == ["registry.example", "no host at all"]
    assert "password" not in repr(assignment) + repr(logins)


def test_an_outsider_gets_none() -> None:
    login = login_for(msgspec.structs.replace(an_assignment(), trusted=False), lambda host: OWN)
    assert login("registry.example") is None


def test_what_is_hidden() -> None:
    login = RegistryLogin(username="alice", password="p:ss word")
    assignment = msgspec.structs.replace(an_assignment(), logins={"h": login}, clone_token="clone-token")
    masker = Masker(to_hide(assignment))
    for text in ("p:ss word", "p%3Ass%20word", base64.b64encode(b"alice:p:ss word").decode(), "clone-token"):
        assert masker.mask_text(f"<{text}>") == "<***>"
