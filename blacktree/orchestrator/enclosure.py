"""What goes with a job to its worker: the secrets it names and the registry logins it may use. Never stored."""

import msgspec
import structlog

from blacktree.cipher import Locked
from blacktree.errors import BadRequest, StorageFailed
from blacktree.job import Failure, Job
from blacktree.orchestrator.vault import Vault
from blacktree.rpc.replica import RegistryLogin
from blacktree.secret import SecretKind, host_name, parse_login
from blacktree.secretfiles import SecretDirectory

MOST_LOGINS = 64
MOST_LOGIN_BYTES = 512 << 10

log = structlog.get_logger()


class Enclosed(msgspec.Struct, frozen=True, kw_only=True):
    """`failure`: the job cannot be handed to anybody, and why."""

    secrets: dict[str, bytes] = {}
    logins: dict[str, RegistryLogin] = {}
    failure: Failure | None = None

    def __repr__(self) -> str:
        return f"Enclosed({len(self.secrets)} secrets, {len(self.logins)} logins)"


async def enclosed(job: Job, vault: Vault, directory: SecretDirectory) -> Enclosed:
    """The vault's secrets before the files of `directory`; an untrusted origin gets what its source allows by name.

    Raises `StorageFailed` where waiting helps.
    """
    if job.origin is not None and not job.origin.may("secrets"):
        return Enclosed(logins=await logins_for(job, vault) if job.origin.may("push") else {})
    source = job.origin.source if job.origin is not None else None
    repository = job.spec.repository
    secrets: dict[str, bytes] = {}
    try:
        for name in job.spec.secrets:
            value = await vault.value(name, kind=SecretKind.BUILD, source=source, repository=repository)
            if value is not None:
                secrets[name] = value
            elif vault.knows(name, kind=SecretKind.BUILD):
                return Enclosed(failure=_not_permitted(name, job))
    except Locked as error:
        return Enclosed(failure=Failure(code=error.code, message=error.message, advice=error.advice))
    except StorageFailed as error:
        if error.again:
            raise
        return Enclosed(failure=Failure(code=error.code, message=error.message, advice=error.advice, retryable=True))
    files = directory.some([name for name in job.spec.secrets if name not in secrets])
    logins = await logins_for(job, vault) if job.origin is None or job.origin.may("push") else {}
    return Enclosed(secrets=secrets | files, logins=logins)


async def logins_for(job: Job, vault: Vault) -> dict[str, RegistryLogin]:
    """Every login in the job's scope, by host; those of the hosts it names come first where there are too many.

    One that cannot be opened is left out: the job may not need it.
    """
    source = job.origin.source if job.origin is not None else None
    wanted = {host_of(image) for image in (job.spec.image or "", *job.spec.tags, *job.spec.cache_from)}
    found: dict[str, RegistryLogin] = {}
    room = MOST_LOGIN_BYTES
    for host in sorted(vault.names(SecretKind.REGISTRY), key=lambda host: (host not in wanted, host)):
        try:
            value = await vault.value(host, kind=SecretKind.REGISTRY, source=source, repository=job.spec.repository)
        except Locked as error:
            log.warning("a registry login cannot be opened", host=host, reason=str(error))
            continue
        if value is None:
            continue
        room -= len(host) + len(value)
        if len(found) == MOST_LOGINS or room < 0:
            log.warning("more registry logins than fit with a job", job=job.id, sent=len(found))
            break
        login = parse_login(value)
        found[host] = RegistryLogin(username=login.username, password=login.password)
    return found


def host_of(image: str) -> str:
    """The registry host in an image's name, or Docker Hub; by Docker's rule."""
    head, slash, _ = image.partition("/")
    named = head if slash and ("." in head or ":" in head or head == "localhost") else "docker.io"
    try:
        return host_name(named)
    except BadRequest:
        return named


def _not_permitted(name: str, job: Job) -> Failure:
    whose = f"the source `{job.origin.source}` and " if job.origin is not None else ""
    return Failure(
        code="secret_not_permitted",
        message=f"the secret `{name}` is not for {whose}the repository {job.spec.repository}",
        advice="leave it out, or widen its scope: `blacktree secret set` with further --source or --repository",
    )
