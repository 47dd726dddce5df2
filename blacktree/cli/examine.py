"""The doctor's visits: each part is asked at the same time, and none is waited for longer than a few seconds."""

import http.client
import json
import os
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from blacktree.cli import findings
from blacktree.cli.findings import Finding
from blacktree.cli.server import Endpoint
from blacktree.config import Config, Origins, default_state_directory
from blacktree.errors import BlacktreeError, NotAllowed, Unavailable

if TYPE_CHECKING:
    from blacktree.providers.base import Health

VISIT_SECONDS = 10.0

Visit = Callable[[], Awaitable[list[Finding]]]


async def examine(config: Config, origins: Origins, where: Endpoint | BlacktreeError, advice: str) -> list[Finding]:
    """Every finding, in a fixed order."""

    async def files() -> list[Finding]:
        farm = where.state if isinstance(where, Endpoint) else None
        return await trio.to_thread.run_sync(local_findings, config, origins, farm)

    visits: list[tuple[str, Visit]] = [
        ("engine", lambda: _engine(config)),
        ("git", _git),
        ("files", files),
        ("broker", lambda: _broker(config)),
        ("server", lambda: _server(where, advice)),
        ("secrets", lambda: _secrets(where)),
        ("orchestrator", lambda: _orchestrator(config, origins)),
    ]
    found: dict[str, list[Finding]] = {}

    async def call(name: str, visit: Visit) -> None:
        found[name] = [
            Finding(
                part=name,
                status="problem",
                text=f"no answer within {VISIT_SECONDS:g} s",
                advice="see whether it hangs, and restart it",
            )
        ]
        with trio.move_on_after(VISIT_SECONDS):
            try:
                found[name] = await visit()
            except BlacktreeError as error:
                found[name] = [Finding(part=name, status="problem", text=error.message, advice=error.advice)]
            except (OSError, trio.BrokenResourceError) as error:
                # One part that cannot be looked at must not hide the others.
                found[name] = [Finding(part=name, status="problem", text=str(error) or type(error).__name__)]

    async with trio.open_nursery() as nursery:
        for name, visit in visits:
            nursery.start_soon(call, name, visit)
    return [finding for name, _ in visits for finding in found[name]]


def local_findings(config: Config, origins: Origins, farm: Path | None = None) -> list[Finding]:
    """Disk, state directories, secret files and registry logins of this machine.

    `farm`: the state directory of one that is here; where the settings name no other, it is the one that counts.
    """
    result = []
    found = {"orchestrator": farm, "worker": farm and farm / "worker"}
    for part, name, settings in (
        ("orchestrator", "orchestrator", config.orchestrator),
        ("worker", "worker", config.worker),
    ):
        here = found[name]
        fallback = here if here is not None and here.is_dir() else default_state_directory(os.environ, name)
        path = Path(settings.state_directory or fallback)
        result.append(findings.state(f"{part} state", path))
        budget = 0
        if part == "worker":
            budget = (
                config.worker.image_budget_bytes + config.worker.cache_budget_bytes + config.worker.mirror_budget_bytes
            )
        result.append(findings.disk(f"{part} disk", path, settings.minimum_free_disk_bytes, budget))
        for key in ("token_file", "join_token_file", "tls_key_file", "git_credentials_file", "ssh_key_file"):
            named = getattr(settings, key, "")
            if named:
                result.append(findings.secret_file(f"{part}.{key}", Path(named)))
        if key_file := getattr(settings, "secrets_key_file", ""):
            result.append(findings.key_file(Path(key_file), path))
        for key in ("token", "join-token"):
            if part == "orchestrator" and (path / key).exists():
                result.append(findings.secret_file(key, path / key))
        result += findings.build_secrets(f"{part} secrets", Path(settings.secrets_directory or path / "secrets"))
    result.append(findings.registry(os.environ))
    return result


async def _engine(config: Config) -> list[Finding]:
    from blacktree.providers import open_provider
    from blacktree.providers.base import ProviderSettings

    settings = ProviderSettings(owner="doctor", engine=config.worker.engine)
    async with open_provider(config.worker.provider, settings) as provider:
        return engine_findings(await provider.check(), config.worker.minimum_free_disk_bytes)


def engine_findings(health: "Health", least: int) -> list[Finding]:
    """From what a provider says of its engine; its `details` are shown as they are. `least`: what must stay free."""
    if health.refusal:
        return [Finding(part="engine", status="problem", text=f"{health.name}: {health.refusal}")]
    found = [Finding(part="engine", status="ok", text=f"{health.name} {health.version}".strip())]
    for key, text in health.details.items():
        found.append(Finding(part=f"engine {key}".replace("_", " "), status="ok", text=text))
    return found + [findings.disk("engine disk", Path(each), least) for each in health.directories]


async def _git() -> list[Finding]:
    try:
        done = await trio.run_process(["git", "--version"], capture_stdout=True, stderr=subprocess.DEVNULL, check=False)
    except OSError:
        return [findings.git(None)]
    return [findings.git(done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None)]


async def _broker(config: Config) -> list[Finding]:
    url = config.orchestrator.broker_url
    if not url:
        return [
            Finding(part="broker", status="ok", text="embedded: the queue is in the orchestrator's state directory")
        ]
    from blacktree.cli.config import mask

    parts = urlsplit(url)
    port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    try:
        with trio.fail_after(5):
            stream = await trio.open_tcp_stream(parts.hostname or "localhost", port)
    except (OSError, trio.TooSlowError) as error:
        why = str(error) or "no answer within 5 s"
        return [
            Finding(
                part="broker",
                status="problem",
                text=f"{mask(url)} cannot be reached: {why}",
                advice="start RabbitMQ, or correct orchestrator.broker_url; jobs wait in the store meanwhile",
            )
        ]
    answer = b""
    # Whoever hangs up on AMQP does not speak it.
    with suppress(trio.BrokenResourceError):
        async with stream:
            # AMQP 0-9-1, section 4.2.2: a server answers a header with its first method frame, or with its own header.
            await stream.send_all(b"AMQP\x00\x00\x09\x01")
            with trio.move_on_after(5):
                answer = await stream.receive_some(64)
    if parts.scheme == "amqp" and not answer.startswith(b"\x01\x00\x00"):
        return [
            Finding(
                part="broker",
                status="problem",
                text=f"what listens at {mask(url)} does not speak AMQP 0-9-1",
                advice="check host and port in orchestrator.broker_url",
            )
        ]
    return [Finding(part="broker", status="ok", text=f"{mask(url)} answers; `blacktree doctor` does not log in there")]


async def _orchestrator(config: Config, origins: Origins) -> list[Finding]:
    """Whether a worker here would reach its orchestrator; asked only where one is named."""
    address = config.worker.orchestrator
    if origins["worker", "orchestrator"] == "default" or address.startswith("unix:"):
        return []
    host, _, port = address.rpartition(":")
    try:
        with trio.fail_after(5):
            stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
    except (OSError, ValueError, trio.TooSlowError) as error:
        return [
            Finding(
                part="orchestrator",
                status="problem",
                text=f"{address} cannot be reached: {str(error) or 'no answer within 5 s'}",
                advice="start it, open its gRPC port, or correct worker.orchestrator",
            )
        ]
    await stream.aclose()
    return [Finding(part="orchestrator", status="ok", text=f"{address} can be reached")]


async def _server(where: Endpoint | BlacktreeError, advice: str) -> list[Finding]:
    if isinstance(where, BlacktreeError):
        return [Finding(part="server", status="warning", text=where.message, advice=where.advice)]
    try:
        asked = time.time()
        status, headers, body = await trio.to_thread.run_sync(_get_ready, where, abandon_on_cancel=True)
        answered = time.time()
    except (OSError, http.client.HTTPException) as error:
        return [Finding(part="server", status="problem", text=f"{where.url} cannot be reached: {error}", advice=advice)]
    found = [_readiness(where, status, body)]
    if date := headers.get("date"):
        theirs = parsedate_to_datetime(date).timestamp() + 0.5
        middle = (asked + answered) / 2
        found.append(findings.clocks("clocks", theirs - middle, (answered - asked) / 2 + 0.5))
    else:
        found.append(Finding(part="clocks", status="warning", text="not compared: the server does not tell its time"))
    return found


async def _secrets(where: Endpoint | BlacktreeError) -> list[Finding]:
    from blacktree.cli.connection import trust_in
    from blacktree.client import Client
    from blacktree.client.secrets import list_secrets

    if isinstance(where, BlacktreeError):
        return []
    try:
        async with Client(where.url, where.token, patience_seconds=0, ssl_context=trust_in(where)) as farm:
            found = await list_secrets(farm)
    except (Unavailable, NotAllowed):
        # The look at the server says it.
        return []
    return [findings.secret_store(found["key"], len(found["secrets"]))]


def _get_ready(where: Endpoint) -> tuple[int, dict[str, str], bytes]:
    from blacktree.cli.connection import trust_in

    parts = urlsplit(where.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    if parts.scheme == "https":
        trusted = trust_in(where)
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=5, context=trusted)
    try:
        headers = {"Authorization": f"Bearer {where.token}"} if where.token else {}
        connection.request("GET", f"{parts.path}/readyz", headers=headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read(1 << 20)
    finally:
        connection.close()


def _readiness(where: Endpoint, status: int, body: bytes) -> Finding:
    try:
        value = json.loads(body)
        state, reasons = str(value["status"]), [str(reason) for reason in value.get("reasons", [])]
    except (ValueError, KeyError, TypeError, AttributeError):
        return Finding(
            part="server",
            status="problem",
            text=f"what listens at {where.url} is not a farm's door",
            advice="check --server or BLACKTREE_SERVER",
        )
    if "reasons" not in value:
        return Finding(
            part="server",
            status="problem",
            text=f"{where.url} answers, but not to this token",
            advice="give the farm's token: --token or BLACKTREE_TOKEN; it is in STATE/token there",
        )
    text = f"{where.url} is {state}{': ' if reasons else ''}{'; '.join(reasons)}"
    return Finding(part="server", status="ok" if status == 200 else "warning", text=text)
