"""What registries and the engine say, and what it is taken for."""

from datetime import UTC, datetime

import pytest

from blacktree.errors import StepFailed
from blacktree.providers.base import Login
from blacktree.providers.registry.auth import Challenge, parse_challenge, read_token, token_request
from blacktree.providers.registry.faults import ADVICE, from_answer, from_text, retry_after
from blacktree.providers.registry.manifest import Platform, checked_platform


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("unauthorized: authentication required", "registry_unauthorized"),
        ("no basic auth credentials", "registry_unauthorized"),
        ("denied: Your authorization token has expired. Reauthenticate and try again.", "registry_unauthorized"),
        ("denied: requested access to the resource is denied", "registry_denied"),
        ("toomanyrequests: You have reached your push rate limit", "registry_limited"),
        ("received unexpected HTTP status: 429 Too Many Requests", "registry_limited"),
        ("received unexpected HTTP status: 500 Internal Server Error", "registry_failed"),
        ("received unexpected HTTP status: 503 Service Unavailable", "registry_failed"),
        ("received unexpected HTTP status: 200 OK", "registry_garbage"),
        ("Get https://r.example/v2/: dial tcp: lookup r.example: no such host", "registry_unreachable"),
        ("Get http://127.0.0.1:5/v2/: dial tcp 127.0.0.1:5: connect: connection refused", "registry_unreachable"),
        ("Put http://r/v2/x: EOF", "registry_unreachable"),
        ("write tcp 1.2.3.4:5->1.2.3.4:443: write: connection reset by peer", "registry_unreachable"),
        ("Get https://r/v2/: net/http: request canceled (Client.Timeout exceeded)", "registry_slow"),
        ("Get https://r/v2/: dial tcp 10.0.0.1:443: i/o timeout", "registry_slow"),
        ("Get https://r/v2/: net/http: TLS handshake timeout", "registry_slow"),
        ("Get https://r:5000/v2/: http: server gave HTTP response to HTTPS client", "registry_insecure"),
        ("Get https://r/v2/: x509: certificate signed by unknown authority", "registry_certificate"),
        (
            "tag invalid: The image tag '1' already exists in the 'app' repository and cannot be overwritten because"
            " the repository is immutable.",
            "tag_immutable",
        ),
        ("unknown: artifact app:1 is immutable, cannot be updated: configured as immutable", "tag_immutable"),
        ("name unknown: The repository with name 'app' does not exist in the registry", "repository_missing"),
        ("error parsing HTTP 404 response body: invalid character '<' looking for beginning", "registry_garbage"),
    ],
)
def test_the_engines_words(text: str, code: str) -> None:
    error = from_text(text, "r.example")
    assert error.code == code
    assert error.again is ADVICE[code][0]
    assert error.advice
    assert text[:40] in error.message


def test_words_that_nobody_has_heard() -> None:
    error = from_text("the moon is full\n\n today", "r.example")
    assert (error.code, error.again, error.message) == ("push_failed", False, "r.example: the moon is full today")
    assert len(from_text("x" * 10_000, "r").message) < 1000


def test_an_answers_text_is_for_people() -> None:
    said = from_answer(502, {}, b"<html><b>Bad\x00 gateway</b></html>\xff", "PUT of app:1", "r.example").message
    assert said == "r.example: PUT of app:1: 502 Bad gateway \ufffd"


def test_when_to_come_again() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after("Thu, 01 Jan 2026 00:01:00 GMT", now) == 60
    assert retry_after("Thu, 01 Jan 2025 00:01:00 GMT", now) == 0
    assert retry_after("9" * 50, now) == 3600
    assert retry_after(f"Mon, 1 Jan {'9' * 20} 00:00:00 GMT", now) == 0
    assert retry_after("-1", now) == retry_after("", now) == retry_after("\u0663", now) == 0


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ('Basic realm="x"', Challenge(scheme="basic")),
        (
            'Bearer realm="https://a/t?x=1",service="s s"',
            Challenge(scheme="bearer", realm="https://a/t?x=1", service="s s"),
        ),
        ('Basic realm="x", Bearer realm="https://a/t"', Challenge(scheme="bearer", realm="https://a/t")),
        ("Negotiate", None),
        ("", None),
    ],
)
def test_challenges(header: str, found: Challenge | None) -> None:
    assert parse_challenge(header) == found


def test_how_a_token_is_asked_for() -> None:
    challenge = Challenge(scheme="bearer", realm="https://a/t?x=1", service="s")
    asked = token_request(challenge, Login("u", "p"), "repository:a:pull,push")
    assert asked.url == "https://a/t?x=1&service=s&scope=repository%3Aa%3Apull%2Cpush"
    assert asked.headers == {"Authorization": "Basic dTpw"}
    identity = token_request(challenge, Login("<token>", "secret"), "x")
    assert (identity.url, identity.headers) == ("https://a/t?x=1", {})
    assert identity.form is not None
    assert identity.form["refresh_token"] == "secret"
    assert "secret" not in repr(identity)
    for body in (b"", b"[]", b"{}", b'{"token": 7}', b'{"token": "a\\nb"}', b"\xff"):
        with pytest.raises(ValueError, match="token"):
            read_token(body)
    assert read_token(b'{"access_token": "abc", "expires_in": 300}').value == "abc"


@pytest.mark.parametrize(
    ("wanted", "os", "architecture", "variant", "fits"),
    [
        ("linux/amd64", "linux", "amd64", "", True),
        ("linux/x86_64", "linux", "amd64", "", True),
        ("linux/arm64", "linux", "arm64", "v8", True),
        ("linux/arm64/v8", "linux", "arm64", "", True),
        ("linux/arm/v7", "linux", "arm", "v7", True),
        ("linux/arm/v6", "linux", "arm", "v7", False),
        ("linux/arm64", "linux", "amd64", "", False),
        ("windows/amd64", "linux", "amd64", "", False),
    ],
)
def test_an_image_is_for_the_platform_that_was_asked_for(
    wanted: str, os: str, architecture: str, variant: str, fits: bool
) -> None:
    found = Platform(os=os, architecture=architecture, variant=variant)
    if fits:
        assert checked_platform(found, wanted).architecture == architecture
    else:
        with pytest.raises(StepFailed) as caught:
            checked_platform(found, wanted)
        assert caught.value.code == "platform_mismatch"
