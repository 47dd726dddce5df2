"""ECR against moto: tokens, repositories, tags, and what is said when something is wrong."""

import base64
import json
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
import trio
from botocore.exceptions import ClientError

from blacktree.concurrency.threads import in_thread
from blacktree.errors import StepFailed
from blacktree.providers.aws.ecr import Ecr, EcrSettings
from blacktree.providers.aws.faults import failure
from blacktree.providers.aws.place import Place
from tests.parts.moto import ACCOUNT, PASSWORD

HOST = f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com"
HERE = Place(ACCOUNT, "eu-central-1")


def client(url: str) -> Any:
    import boto3

    return boto3.client("ecr", region_name=HERE.region, endpoint_url=url)


async def test_a_login_from_a_token(moto: str) -> None:
    ecr = Ecr(EcrSettings(endpoint_url=moto))
    found = await in_thread(lambda: ecr.login(HOST))
    assert found is not None
    assert (found.username, found.password) == ("AWS", PASSWORD)
    assert ecr.login("docker.io") is None


def test_a_token_past_its_end_is_used_and_not_kept(moto: str) -> None:
    """moto's are of 2015: each use fetches another, none is fetched twice for one use."""
    ecr = Ecr(EcrSettings(endpoint_url=moto))
    for number in (1, 2, 3):
        assert ecr.login(HOST) is not None
        assert ecr.asked == number


class Clerk(Ecr):
    """The caching with a clock of the test's own and AWS's answers as the test wants them."""

    def __init__(self, life: float) -> None:
        super().__init__(EcrSettings(), clock=lambda: self.now)
        self.now = 1_000_000.0
        self.life = life
        self.fail: Exception | None = None
        self.slow: threading.Event | None = None

    def _client(self, place: Place) -> Any:
        return self

    def get_authorization_token(self) -> dict[str, Any]:
        if self.slow is not None:
            self.slow.wait(5)
        if self.fail is not None:
            raise self.fail
        token = base64.b64encode(f"AWS:token-{self.asked}".encode()).decode()
        expires = datetime.fromtimestamp(self.now + self.life, UTC)
        return {"authorizationData": [{"authorizationToken": token, "expiresAt": expires}]}


def test_a_token_is_kept_and_renewed_before_it_ends() -> None:
    clerk = Clerk(12 * 3600)
    assert {clerk.token(HERE).login.password for _ in range(5)} == {"token-1"}
    clerk.now += 11 * 3600 - 1
    assert clerk.token(HERE).login.password == "token-1"
    clerk.now += 2
    assert clerk.token(HERE).login.password == "token-2"
    assert clerk.token(Place(ACCOUNT, "us-east-1")).login.password == "token-3"


def test_a_short_token_is_renewed_at_half_its_life() -> None:
    clerk = Clerk(600)
    clerk.token(HERE)
    clerk.now += 299
    assert clerk.token(HERE).login.password == "token-1"
    clerk.now += 2
    assert clerk.token(HERE).login.password == "token-2"


def test_while_aws_is_away_the_old_token_serves_on() -> None:
    clerk = Clerk(12 * 3600)
    clerk.token(HERE)
    clerk.now += 11.5 * 3600
    clerk.fail = botocore.exceptions.EndpointConnectionError(endpoint_url="https://nowhere")
    assert clerk.token(HERE).login.password == "token-1"
    clerk.fail = botocore.exceptions.NoCredentialsError()
    with pytest.raises(StepFailed):
        clerk.token(HERE)


async def test_many_at_once_ask_once() -> None:
    clerk = Clerk(12 * 3600)
    clerk.slow = threading.Event()
    found: list[str] = []

    async def one() -> None:
        found.append((await in_thread(lambda: clerk.token(HERE))).login.password)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(one)
        while not clerk.asked:
            await trio.sleep(0.005)
        clerk.slow.set()
    assert found == ["token-1"] * 8


def test_no_token_is_shown() -> None:
    clerk = Clerk(12 * 3600)
    assert "token-1" not in repr(clerk.token(HERE))


async def test_a_missing_repository_is_made(moto: str, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(
        '{"rules": [{"rulePriority": 1, "selection": {"tagStatus": "untagged", "countType": "imageCountMoreThan",'
        ' "countNumber": 5}, "action": {"type": "expire"}}]}'
    )
    ecr = Ecr(EcrSettings(endpoint_url=moto, immutable_tags=True, lifecycle_policy_file=str(policy)))
    await ecr.prepare(HOST, "team/app")
    await ecr.prepare(HOST, "team/app")
    (found,) = client(moto).describe_repositories()["repositories"]
    assert found["repositoryName"] == "team/app"
    assert found["imageScanningConfiguration"] == {"scanOnPush": True}
    assert found["imageTagMutability"] == "IMMUTABLE"
    assert "imageCountMoreThan" in client(moto).get_lifecycle_policy(repositoryName="team/app")["lifecyclePolicyText"]


async def test_a_race_for_the_same_repository_is_harmless(moto: str) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(Ecr(EcrSettings(endpoint_url=moto)).prepare, HOST, "race")
    assert len(client(moto).describe_repositories()["repositories"]) == 1


async def test_none_is_made_where_that_is_switched_off(moto: str) -> None:
    with pytest.raises(StepFailed) as caught:
        await Ecr(EcrSettings(endpoint_url=moto, create_repositories=False)).prepare(HOST, "app")
    assert (caught.value.code, caught.value.again) == ("repository_missing", False)
    assert client(moto).describe_repositories()["repositories"] == []


async def test_credentials_of_another_account(moto: str) -> None:
    with pytest.raises(StepFailed) as caught:
        await Ecr(EcrSettings(endpoint_url=moto)).prepare("999999999999.dkr.ecr.eu-central-1.amazonaws.com", "app")
    assert (caught.value.code, caught.value.again) == ("aws_other_account", False)
    assert f"of account {ACCOUNT}, the repository app would be in 999999999999" in caught.value.message


async def test_no_credentials(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    ecr = Ecr(EcrSettings(endpoint_url=moto))
    assert ecr.login(HOST) is None
    with pytest.raises(StepFailed) as caught:
        await ecr.prepare(HOST, "app")
    assert (caught.value.code, caught.value.again) == ("aws_credentials_missing", False)
    assert "AWS_PROFILE" in caught.value.advice


async def test_a_profile_is_used_and_a_wrong_one_told(moto: str, tmp_path: Path) -> None:
    (tmp_path / "aws-credentials").write_text("[farm]\naws_access_key_id = AKIAFARM\naws_secret_access_key = x\n")
    await Ecr(EcrSettings(endpoint_url=moto, profile="farm")).prepare(HOST, "app")
    with pytest.raises(StepFailed) as caught:
        await Ecr(EcrSettings(endpoint_url=moto, profile="nobody")).prepare(HOST, "app")
    assert caught.value.code == "aws_credentials_missing"
    assert "nobody" in caught.value.message


class OnlyNew(ThreadingHTTPServer):
    """AWS's API for the key AKIANEW alone: every other has expired."""

    class RequestHandlerClass(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            good = "AKIANEW" in self.headers["authorization"]
            token = base64.b64encode(b"AWS:new").decode()
            answer: dict[str, Any] = {"__type": "ExpiredTokenException", "message": "expired"}
            if good:
                answer = {"authorizationData": [{"authorizationToken": token, "expiresAt": time.time() + 40_000}]}
            body = json.dumps(answer).encode()
            self.send_response(200 if good else 400)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass


async def test_credentials_that_were_renewed_in_their_file_are_read_anew(
    aws_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    def write(key: str) -> None:
        text = f"[default]\naws_access_key_id = {key}\naws_secret_access_key = x\naws_session_token = y\n"
        (tmp_path / "aws-credentials").write_text(text)

    with OnlyNew(("127.0.0.1", 0), OnlyNew.RequestHandlerClass) as api:
        threading.Thread(target=api.serve_forever, daemon=True).start()
        ecr = Ecr(EcrSettings(endpoint_url=f"http://127.0.0.1:{api.server_port}"))
        with pytest.raises(StepFailed) as caught:
            ecr.token(HERE)
        assert caught.value.code == "aws_credentials_missing"
        write("AKIAOLD")
        with pytest.raises(StepFailed) as caught:
            ecr.token(HERE)
        assert caught.value.code == "aws_credentials_expired"
        write("AKIANEW")
        assert ecr.token(HERE).login.password == "new"
        api.shutdown()


async def test_an_api_that_does_not_answer(aws_environment: None) -> None:
    with pytest.raises(StepFailed) as caught:
        await Ecr(EcrSettings(endpoint_url="http://127.0.0.1:1")).prepare(HOST, "app")
    assert (caught.value.code, caught.value.again) == ("registry_unreachable", True)


async def test_a_policy_that_is_none(moto: str, tmp_path: Path) -> None:
    with pytest.raises(StepFailed) as caught:
        await Ecr(EcrSettings(endpoint_url=moto, lifecycle_policy_file=str(tmp_path / "no"))).prepare(HOST, "app")
    assert caught.value.code == "lifecycle_policy"
    assert client(moto).describe_repositories()["repositories"] == []


async def test_tags_are_taken_away(moto: str) -> None:
    ecr = Ecr(EcrSettings(endpoint_url=moto))
    await ecr.prepare(HOST, "app")
    manifest = '{"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json"}'
    for tag in ("1.0", "push-x-1"):
        client(moto).put_image(repositoryName="app", imageManifest=manifest, imageTag=tag)
    assert await ecr.delete_tags(HOST, "app", ["push-x-1", "push-x-0"])
    (image,) = client(moto).describe_images(repositoryName="app")["imageDetails"]
    assert image["imageTags"] == ["1.0"]
    assert not await ecr.delete_tags("docker.io", "app", ["x"])


@pytest.mark.parametrize(
    ("code", "status", "ours", "again"),
    [
        ("ExpiredTokenException", 400, "aws_credentials_expired", False),
        ("UnrecognizedClientException", 400, "aws_credentials_invalid", False),
        ("AccessDeniedException", 400, "aws_denied", False),
        ("ThrottlingException", 400, "registry_throttled", True),
        ("ServerException", 500, "registry_unavailable", True),
        ("SomethingNew", 503, "registry_unavailable", True),
        ("SomethingNew", 400, "aws_failed", False),
    ],
)
def test_what_the_service_says(code: str, status: int, ours: str, again: bool) -> None:
    error = ClientError(
        {"Error": {"Code": code, "Message": "so"}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "CreateRepository",
    )
    found = failure(error, "ecr:CreateRepository")
    assert (found.code, found.again) == (ours, again)
    assert "ecr:CreateRepository" in found.message


def test_an_idle_worker_does_not_load_it() -> None:
    program = "import sys; import blacktree.worker.daemon; print(any(n.startswith('boto') for n in sys.modules))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
