"""What may lie on an execute queue, and what of it is put aside: pure."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blacktree.config import QueueConfig
from blacktree.errors import BadRequest
from blacktree.orchestrator.original import Translator, image_part
from blacktree.orchestrator.ticket import Submission, Ticket, read_body, without_token
from blacktree.spec import is_image_name

MESSAGE: dict[str, Any] = {
    "deploymentId": "0b54e6f2-7b5a-4a5c-9f59-5ad2f0c1c7d1",
    "token": "gho_secretOfTheUser",
    "repository": "owner/repo",
    "branch": "main",
    "dockerFilePath": "Dockerfile",
    "contextDir": ".",
    "createdAt": "2025-09-01T10:20:30.123Z",
}


def read(value: Any, **settings: Any) -> Ticket | Submission:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read_body(body, Translator(QueueConfig(**settings)).submission)


def translated(**changes: Any) -> Submission:
    found = read(MESSAGE | changes)
    assert isinstance(found, Submission)
    return found


def test_a_message_of_the_original_system() -> None:
    found = translated()
    assert (found.id, found.token) == (MESSAGE["deploymentId"], MESSAGE["token"])
    assert found.spec.repository == "https://github.com/owner/repo.git"
    assert (found.spec.ref, found.spec.context, found.spec.dockerfile) == ("main", ".", "Dockerfile")
    assert found.spec.image == f"blacktree/{MESSAGE['deploymentId']}"
    assert not found.spec.push
    assert "gho_" not in repr(found)


@pytest.mark.parametrize(
    "changes",
    [
        {"AutoDeploy": True},  # the Go producer's struct has it, without a JSON name
        {"createdAt": "0001-01-01T00:00:00Z"},
        {"createdAt": "2025-09-01T10:20:30.123456789+02:00"},
        {"token": ""},
        {"token": None},
        {"repository": "owner/.github"},
        {"repository": "owner/repo.git"},
        {"repository": "group/sub/repo"},
        {"branch": "feature/über"},
    ],
)
def test_what_its_producers_send_is_taken(changes: dict[str, Any]) -> None:
    assert translated(**changes).spec.repository.endswith(".git")


@pytest.mark.parametrize(("given", "expected"), [("./apps/api/", "apps/api"), ("./", "."), ("a//b", "a/b")])
def test_paths_are_put_straight(given: str, expected: str) -> None:
    found = translated(contextDir=given, dockerFilePath="./Dockerfile")
    assert (found.spec.context, found.spec.dockerfile) == (expected, "Dockerfile")


BAD = [
    ({"deploymentId": "a/b"}, "message.deploymentId"),
    ({"deploymentId": 7}, "message.deploymentId"),
    ({"token": ["x"]}, "message.token"),
    ({"token": "two\nlines"}, "message.token"),
    ({"token": "x" * 5000}, "message.token"),
    ({"repository": "repo"}, "message.repository"),
    ({"repository": "owner/../repo"}, "message.repository"),
    ({"repository": "-c/x"}, "message.repository"),
    ({"repository": "https://evil.example/owner/repo"}, "message.repository"),
    ({"repository": "owner/re po"}, "message.repository"),
    ({"branch": ""}, "message.branch"),
    ({"branch": "--upload-pack=x"}, "message.branch"),
    ({"dockerFilePath": "/etc/passwd"}, "message.dockerFilePath"),
    ({"contextDir": "../.."}, "message.contextDir"),
    ({"contextDir": ""}, "message.contextDir"),
    ({"createdAt": "yesterday"}, "message.createdAt"),
    ({"AutoDeploy": "yes"}, "message.AutoDeploy"),
    ({"dockerfilePath": "Dockerfile"}, "message.dockerfilePath"),
    ({"composeFilePath": "compose.yaml"}, "message.composeFilePath"),
]


@pytest.mark.parametrize(("changes", "path"), BAD)
def test_what_is_wrong_is_named_and_no_value_with_it(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(BadRequest) as caught:
        translated(**changes)
    assert caught.value.path == path
    assert path in str(caught.value)
    assert "gho_" not in str(caught.value)


@pytest.mark.parametrize("key", [key for key in MESSAGE if key != "deploymentId"])
def test_all_seven_keys_must_be_there(key: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read({name: value for name, value in MESSAGE.items() if name != key})
    assert key in str(caught.value)


def test_another_host_and_a_registry() -> None:
    settings = {"repository_base_url": "https://git.example/scm/", "push_prefix": "registry.example:5000/team/"}
    found = read(MESSAGE, **settings)
    assert isinstance(found, Submission)
    assert found.spec.repository == "https://git.example/scm/owner/repo.git"
    assert found.spec.image == f"registry.example:5000/team/blacktree/{MESSAGE['deploymentId']}"
    assert found.spec.push


@pytest.mark.parametrize("base", ["git@git.example:", "ssh://git@git.example/", "/srv/git/"])
def test_a_host_that_asks_for_no_token_gets_none(base: str) -> None:
    found = read(MESSAGE, repository_base_url=base)
    assert isinstance(found, Submission)
    assert found.token == ""


@pytest.mark.parametrize(
    "settings",
    [
        {"push_prefix": "Registry.example/Team"},
        {"push_prefix": "registry.example/a b"},
        {"repository_base_url": "ftp://x/"},
        {"repository_base_url": "https://user:secret@x/"},
    ],
)
def test_settings_that_never_fit_are_told_at_the_start(settings: dict[str, str]) -> None:
    with pytest.raises(BadRequest) as caught:
        Translator(QueueConfig(**settings))
    assert caught.value.code == "invalid_config"
    assert next(iter(settings)) in str(caught.value)


IDS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


@given(IDS, IDS)
def test_every_id_has_an_image_name_of_its_own(one: str, other: str) -> None:
    assert is_image_name(f"blacktree/{image_part(one)}")
    assert one == other or image_part(one) != image_part(other)


def test_an_id_of_the_original_is_its_own_name() -> None:
    assert image_part(MESSAGE["deploymentId"]) == MESSAGE["deploymentId"]
    assert image_part("A_b") != image_part("a_b")


def test_the_other_forms() -> None:
    assert read({"id": "a", "generation": 3}) == Ticket("a", 3)
    found = read({"id": "a", "spec": {"repository": "https://x/y"}})
    assert isinstance(found, Submission)
    assert (found.id, found.token) == ("a", "")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"{" * 100_000, "malformed"),
        (b"[" * 100_000 + b"]" * 100_000, "malformed"),
        (b"null", "invalid"),
        (b"[]", "invalid"),
        (b'"deploymentId"', "invalid"),
        (b'{"id": "a"}', "invalid"),
        (b'{"id": "a", "generation": 0}', "invalid"),
        (b'{"id": "a", "generation": 1, "spec": {}}', "invalid"),
        (json.dumps(MESSAGE | {"spec": {}}).encode(), "invalid"),
        (b'{"id": "a", "spec": {"repository": "' + b"x" * (10 << 20) + b'"}}', "too_large"),
    ],
)
def test_anything_else_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(body)
    assert caught.value.code == code


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_be_refused(body: bytes) -> None:
    try:
        read(body)
    except BadRequest:
        pass


TOKENS = st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=30)


@given(TOKENS, st.integers(0, 200))
def test_no_token_lies_among_the_dead(token: str, cut: int) -> None:
    """Also where the rest of the body cannot be read."""
    body = json.dumps(MESSAGE | {"token": f"gho_{token}_end"}).encode()
    assert json.loads(without_token(body)) == MESSAGE | {"token": "***"}
    assert b"gho_" not in without_token(body[: len(body) - cut])
    assert b"gho_" not in without_token(b"{{" + body.replace(b'"token"', b'"Token"'))


def test_a_body_without_a_token_stays_itself() -> None:
    for body in (b'{"id": "a", "spec": {}}', b"", b'"token"', b'{"token": 7}'):
        assert without_token(body) is body
