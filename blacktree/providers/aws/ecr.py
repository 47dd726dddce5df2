"""AWS's image registry: logins from short-lived tokens, repositories made when missing, tags taken away.

boto3 is loaded at the first use (some 100 ms and 30 MB), by whoever builds for such a registry, and by nobody else.
Credentials are boto3's own business: roles, profiles, environment, instance metadata.
"""

import base64
import binascii
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import structlog

from blacktree.concurrency.threads import in_loose_thread, in_thread
from blacktree.config import WorkerConfig
from blacktree.errors import StepFailed
from blacktree.providers.aws.faults import failure, service_code
from blacktree.providers.aws.place import Place, place_of
from blacktree.providers.base import Login

if TYPE_CHECKING:
    from types_boto3_ecr import ECRClient

T = TypeVar("T")

log = structlog.get_logger()

# A push may be long: a token is renewed when less than this is left of it (or half, of a shorter one).
RENEW_SECONDS = 3600.0
CONNECT_SECONDS = 5
READ_SECONDS = 15
MOST_TAGS = 100  # BatchDeleteImage's limit


class EcrSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`hosts`: what stands in an image's name → the ECR host that it stands for (a proxy, or a test)."""

    profile: str = ""
    endpoint_url: str = ""
    hosts: dict[str, str] = {}
    create_repositories: bool = True
    scan_on_push: bool = True
    immutable_tags: bool = False
    lifecycle_policy_file: str = ""


def settings_of(config: WorkerConfig) -> EcrSettings:
    """The worker's `ecr_…` settings."""
    return EcrSettings(
        **{
            name: getattr(config, f"ecr_{name}") for name in EcrSettings.__struct_fields__
        }  # each key has its twin there
    )


class Token(msgspec.Struct, frozen=True):
    """A registry login. `renew_at`: wall clock, seconds; `account`: whose credentials it came from."""

    login: Login
    account: str
    renew_at: float

    def __repr__(self) -> str:
        return "Token(***)"


class Ecr:
    """One for all builds of a worker. Safe in many threads: tokens and clients are made once each."""

    def __init__(self, settings: EcrSettings, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._locks: dict[Place, threading.Lock] = {}
        self._tokens: dict[Place, Token] = {}
        self._clients: dict[Place, Any] = {}
        self.asked = 0

    def place(self, host: str) -> Place | None:
        """The AWS registry behind this host, if it is one."""
        return place_of(self._settings.hosts.get(host, host))

    # Logins

    def login(self, host: str) -> Login | None:
        """A login for the host; None if it is not AWS's or no credentials are of use. Blocks: call it in a thread.

        What exactly is wrong with the credentials, `prepare` tells whoever pushes.
        """
        place = self.place(host)
        if place is None:
            return None
        try:
            return self.token(place).login
        except StepFailed as error:
            log.info("no login for the registry", host=host, reason=str(error))
            return None

    def token(self, place: Place) -> Token:
        """A token that is good for a while. Blocks. Raises `StepFailed` told apart by what is wrong."""
        with self._lock:
            lock = self._locks.setdefault(place, threading.Lock())
        with lock:
            known = self._tokens.get(place)
            if known is not None and self._clock() < known.renew_at:
                return known
            try:
                fresh = self._fetch(place)
            except StepFailed as error:
                if known is not None and error.again:
                    # Not good for long any more, but AWS cannot be asked just now: the registry has the last word.
                    return known
                self._tokens.pop(place, None)
                raise
            # Past at receipt (a clock that is wrong, a stand-in): of use for this once.
            if fresh.renew_at > self._clock():
                self._tokens[place] = fresh
            else:
                self._tokens.pop(place, None)
            return fresh

    def _fetch(self, place: Place) -> Token:
        self.asked += 1
        what = "ecr-public:GetAuthorizationToken" if place.public else "ecr:GetAuthorizationToken"
        answer: Any = self._told(place, what, lambda client: client.get_authorization_token())
        try:
            data = answer["authorizationData"]
            data = data[0] if isinstance(data, list) else data
            user, colon, password = base64.b64decode(data["authorizationToken"], validate=True).decode().partition(":")
            expires: datetime = data["expiresAt"]
            endpoint = str(data.get("proxyEndpoint", ""))
        except (LookupError, TypeError, ValueError, binascii.Error):
            raise StepFailed(
                f"AWS: {what}: the answer holds no token", code="registry_unavailable", again=True
            ) from None
        if not colon or not password:
            raise StepFailed(f"AWS: {what}: the token is no login", code="registry_unavailable", again=True)
        left = expires.timestamp() - self._clock()
        renew_at = self._clock() + left - min(RENEW_SECONDS, left / 2)
        owner = place_of(endpoint.partition("://")[2])
        return Token(Login(user, password), owner.account if owner else place.account, renew_at)

    def _client(self, place: Place) -> "ECRClient":
        with self._lock:
            if place not in self._clients:
                import boto3
                from botocore.config import Config

                settings = self._settings
                session = boto3.session.Session(profile_name=settings.profile or None)
                self._clients[place] = session.client(
                    "ecr-public" if place.public else "ecr",
                    region_name=place.region,
                    endpoint_url=settings.endpoint_url or None,
                    config=Config(
                        connect_timeout=CONNECT_SECONDS,
                        read_timeout=READ_SECONDS,
                        retries={"mode": "standard", "total_max_attempts": 3},
                    ),
                )
            client: ECRClient = self._clients[place]
            return client

    def _ask(self, place: Place, call: Callable[["ECRClient"], T]) -> T:
        """What AWS says. boto3 reads a credentials file once a client: refused ones are read anew, once."""
        known = place in self._clients
        try:
            return call(self._client(place))
        except Exception as error:
            if not known or not failure(error, "").code.startswith("aws_credentials"):
                raise
            with self._lock:
                self._clients.pop(place, None)
        return call(self._client(place))

    def _told(self, place: Place, what: str, call: Callable[["ECRClient"], T]) -> T:
        try:
            return self._ask(place, call)
        except Exception as error:
            raise failure(error, what) from None

    # Repositories

    async def prepare(self, host: str, repository: str) -> None:
        """See that the repository is there before the first byte; nothing for a host that is not AWS's.

        Raises `StepFailed`: what is wrong with the credentials, or with the repository, and what to do.
        """
        place = self.place(host)
        if place is not None:
            await in_loose_thread(partial(self._prepare, place, repository))

    def _prepare(self, place: Place, repository: str) -> None:
        token = self.token(place)
        if place.public:
            return  # a public repository has texts and a name that people choose: made by hand
        foreign = token.account != place.account
        try:
            self._ask(
                place, lambda each: each.describe_repositories(registryId=place.account, repositoryNames=[repository])
            )
            return
        except Exception as error:
            code = service_code(error)
            if code != "RepositoryNotFoundException":
                found = failure(error, "ecr:DescribeRepositories")
                if found.code == "aws_denied" and not foreign:
                    # It may push without being allowed to look; if not, the registry says so.
                    return
                raise (
                    _other_account(token, place, repository) if foreign and found.code == "aws_denied" else found
                ) from None
            if foreign:
                raise _other_account(token, place, repository) from None
            if not self._settings.create_repositories:
                raise failure(error, "ecr:DescribeRepositories") from None
        self._create(place, repository)

    def _create(self, place: Place, repository: str) -> None:
        settings = self._settings
        policy = self._lifecycle_policy()
        try:
            self._ask(
                place,
                lambda client: client.create_repository(
                    repositoryName=repository,
                    imageScanningConfiguration={"scanOnPush": settings.scan_on_push},
                    imageTagMutability="IMMUTABLE" if settings.immutable_tags else "MUTABLE",
                ),
            )
        except Exception as error:
            if service_code(error) == "RepositoryAlreadyExistsException":
                return  # somebody else made it in this moment, and sees to its policy
            raise failure(error, "ecr:CreateRepository") from None
        log.info("repository made", repository=repository)
        if policy:
            self._told(
                place,
                "ecr:PutLifecyclePolicy",
                lambda client: client.put_lifecycle_policy(repositoryName=repository, lifecyclePolicyText=policy),
            )

    def _lifecycle_policy(self) -> str:
        path = self._settings.lifecycle_policy_file
        if not path:
            return ""
        try:
            text = Path(path).read_text(encoding="utf-8")
            msgspec.json.decode(text)
        except (OSError, ValueError) as error:
            raise StepFailed(
                f"the lifecycle policy {path} cannot be used: {getattr(error, 'strerror', None) or error}",
                code="lifecycle_policy",
                advice="worker.ecr_lifecycle_policy_file names a JSON file with `rules`",
                step="push",
            ) from None
        return text

    async def delete_tags(self, host: str, repository: str, tags: Sequence[str]) -> bool:
        """Take these tags away; False for a host whose API this is not. Tags that are not there are no error.

        ECR's registry API has no way to do it; its own API takes the tag and leaves an image that has another one.
        """
        place = self.place(host)
        if place is None or place.public:
            return False
        for start in range(0, len(tags), MOST_TAGS):
            some = tags[start : start + MOST_TAGS]
            await in_thread(partial(self._delete, place, repository, some))
        return True

    def _delete(self, place: Place, repository: str, tags: Sequence[str]) -> None:
        ids: Any = [{"imageTag": tag} for tag in tags]
        self._told(
            place,
            "ecr:BatchDeleteImage",
            lambda client: client.batch_delete_image(registryId=place.account, repositoryName=repository, imageIds=ids),
        )


def _other_account(token: Token, place: Place, repository: str) -> StepFailed:
    return StepFailed(
        f"AWS: the credentials are of account {token.account}, the repository {repository} would be in {place.account}",
        code="aws_other_account",
        again=False,
        advice="use a role of that account (worker.ecr_profile), have its repository policy allow this one, or mend "
        "the image's name",
        step="push",
    )
