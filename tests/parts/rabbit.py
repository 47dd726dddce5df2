"""A private RabbitMQ node: own name, ports, data, cookie and epmd, on loopback only; ended by its pid."""

import atexit
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trio

from tests.parts.ports import free_port as free_port

START_SECONDS = 100.0
CALL_SECONDS = 60.0


def find_server() -> Path | None:
    """The real start script; the one on PATH may be a wrapper that changes the user."""
    found = shutil.which("rabbitmq-server", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    candidates = [Path("/usr/lib/rabbitmq/bin/rabbitmq-server"), *([Path(found).resolve()] if found else [])]
    return next((path for path in candidates if path.exists() and path.name == "rabbitmq-server"), None)


def missing() -> str:
    """Why no node can be started here, or an empty string."""
    if find_server() is None:
        return "rabbitmq-server is not installed"
    for program in ("epmd", "erl_call"):
        if shutil.which(program) is None:
            return f"{program} (Erlang) is not installed"
    return ""


def require_rabbitmq() -> None:
    """Skip the test where RabbitMQ is missing; on CI that is a failure."""
    reason = missing()
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


class RabbitNode:
    """One node. The methods block (a second or less, `start` a few): call them in a thread from Trio."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port, self.tls_port, self._dist_port, self._epmd_port = (free_port() for _ in range(4))
        self.name = f"blacktree{secrets.token_hex(4)}@localhost"
        self.cookie = secrets.token_hex(16)
        self.password = secrets.token_hex(8)
        self._epmd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        cookie_file = directory / ".erlang.cookie"
        cookie_file.write_text(self.cookie)
        cookie_file.chmod(0o400)
        self.authority = directory / "authority.pem"
        _write_certificates(directory)
        self._write_configuration()

    @property
    def url(self) -> str:
        return f"amqp://tree:{self.password}@127.0.0.1:{self.port}/"

    @property
    def tls_url(self) -> str:
        return f"amqps://tree:{self.password}@127.0.0.1:{self.tls_port}/"

    def _write_configuration(self) -> None:
        (self.directory / "plugins").write_text("[].\n")
        # As Erlang terms: of the other format the node works a second more at each start.
        (self.directory / "rabbitmq.config").write_text(
            "[{rabbit, [\n"
            f'  {{tcp_listeners, [{{"127.0.0.1", {self.port}}}]}},\n'
            f'  {{ssl_listeners, [{{"127.0.0.1", {self.tls_port}}}]}},\n'
            f'  {{ssl_options, [{{cacertfile, "{self.authority}"}}, {{certfile, "{self.directory / "server.pem"}"}},\n'
            f'    {{keyfile, "{self.directory / "server.key"}"}}, {{verify, verify_none}}]}},\n'
            '  {default_user, <<"tree">>},\n'
            f'  {{default_pass, <<"{self.password}">>}},\n'
            "  {disk_free_limit, 1000000},\n"
            '  {vm_memory_high_watermark, {absolute, "2GB"}},\n'
            "  {log, [{file, [{level, info}]}]}\n"
            "]}].\n"
        )

    def _environment(self) -> dict[str, str]:
        data = str(self.directory)
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin",
            "LANG": "C.UTF-8",
            "HOME": data,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_BASE": data,
            "RABBITMQ_MNESIA_BASE": f"{data}/mnesia",
            "RABBITMQ_LOG_BASE": f"{data}/log",
            "RABBITMQ_PID_FILE": f"{data}/pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{data}/plugins",
            "RABBITMQ_CONFIG_FILE": f"{data}/rabbitmq.config",
            "RABBITMQ_CONF_ENV_FILE": f"{data}/rabbitmq-env.conf",
            # The script then becomes the node itself, so that its pid is ours to end.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_START_ARGS": "-noinput -kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +A 8",
        }

    def start(self) -> None:
        """Start on the same ports and data; returns when AMQP answers."""
        assert self._server is None, "runs already"
        environment = self._environment()
        if self._epmd is None:
            command = ["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"]
            self._epmd = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            _wait_port(self._epmd_port, time.monotonic() + START_SECONDS)
        server = find_server()
        assert server is not None
        with (self.directory / "output").open("ab") as output:
            self._server = subprocess.Popen(
                [str(server)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
            )
        deadline = time.monotonic() + START_SECONDS
        while not _answers(self.port):
            if self._server.poll() is not None or time.monotonic() > deadline:
                self.kill()
                tail = (self.directory / "output").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"RabbitMQ did not start: {tail}")
            time.sleep(0.05)

    def evaluate(self, expression: str) -> str:
        """Evaluate Erlang in the node, e.g. `rabbit:stop()`; answers what `erl_call` prints."""
        command = ["erl_call", "-sname", self.name, "-c", self.cookie, "-e"]
        done = subprocess.run(
            command,
            env=self._environment(),
            input=f"{expression}.\n".encode(),
            capture_output=True,
            timeout=CALL_SECONDS,
            check=False,
        )
        answer = done.stdout.decode()
        if done.returncode != 0 or not answer.startswith("{ok,"):
            raise RuntimeError(f"{expression}: {answer} {done.stderr.decode()}")
        return answer.removeprefix("{ok,").strip().removesuffix("}").strip()

    def _expect_ok(self, expression: str) -> None:
        answer = self.evaluate(expression)
        if answer != "ok":
            raise RuntimeError(f"{expression}: {answer}")

    def stop_app(self) -> None:
        """As `rabbitmqctl stop_app`: every connection is closed, data stay."""
        self.evaluate("rabbit:stop()")

    def start_app(self) -> None:
        self._expect_ok("rabbit:start()")
        _wait_port(self.port, time.monotonic() + START_SECONDS)

    def wipe(self) -> None:
        """Queues, exchanges and messages gone, as on a new machine; user and port as before."""
        self._expect_ok("begin rabbit:stop(), rabbit_mnesia:force_reset(), rabbit:start() end")
        _wait_port(self.port, time.monotonic() + START_SECONDS)

    def close_connections(self) -> None:
        """As `rabbitmqctl close_all_connections`."""
        self.evaluate(
            '[rabbit_networking:close_connection(Pid, "by a test") || Pid <- rabbit_networking:connections()]'
        )

    def block(self, on: bool) -> None:
        """Set off the memory alarm, or end it."""
        self.evaluate(f"vm_memory_monitor:set_vm_memory_high_watermark({'0.000001' if on else '0.9'})")

    def clear(self) -> None:
        """Delete every queue and the farm's exchange."""
        self.evaluate(
            '[rabbit_amqqueue:delete(Q, false, false, <<"tests">>) || Q <- rabbit_amqqueue:list(<<"/">>)], '
            'rabbit_exchange:delete(rabbit_misc:r(<<"/">>, exchange, <<"blacktree.direct">>), false, <<"tests">>)'
        )

    def delete_queue(self, name: str) -> None:
        self.evaluate(
            f'begin {{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{name}">>)), '
            f'rabbit_amqqueue:delete(Q, false, false, <<"tests">>) end'
        )

    def kill(self) -> None:
        """kill -9; the data stay. `start` brings it back."""
        server, self._server = self._server, None
        if server is not None:
            if server.poll() is None:
                server.send_signal(signal.SIGKILL)
            server.wait(40)

    @property
    def runs(self) -> bool:
        """Whether the node's process lives."""
        return self._server is not None and self._server.poll() is None

    def erase(self) -> None:
        """As a lost disk: kill -9, and all that it had stored is gone. `start` brings back an empty one."""
        self.kill()
        shutil.rmtree(self.directory / "mnesia")

    def close(self) -> None:
        """End node and epmd."""
        self.kill()
        epmd, self._epmd = self._epmd, None
        if epmd is not None:
            epmd.kill()
            epmd.wait(40)


@contextmanager
def open_rabbit() -> Iterator[RabbitNode]:
    """A running node in a directory of its own."""
    directory = Path(tempfile.mkdtemp(prefix="blacktree-rabbit-"))
    node = RabbitNode(directory)
    try:
        node.start()
        yield node
    finally:
        node.close()
        shutil.rmtree(directory, ignore_errors=True)


_shared: list[RabbitNode] = []


def shared_node() -> RabbitNode:
    """The node that the whole test run shares, started at its first use. Skips where RabbitMQ is missing."""
    require_rabbitmq()
    if not _shared:
        opened = open_rabbit()
        _shared.append(opened.__enter__())
        atexit.register(opened.__exit__, None, None, None)
    node = _shared[0]
    if not _answers(node.port):
        # A test that failed half-way left it down.
        node.kill()
        node.start()
    return node


class Proxy:
    """A TCP proxy before the node, which can cut its connections or swallow all that passes."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._streams: set[trio.SocketStream] = set()
        self.black_hole = False
        self.refuse = False
        self.port = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._serve, listeners)

    async def cut(self) -> None:
        """Drop every connection without a word."""
        for stream in list(self._streams):
            await trio.aclose_forcefully(stream)

    async def _serve(self, near: trio.SocketStream) -> None:
        if self.refuse:
            await trio.aclose_forcefully(near)
            return
        try:
            far = await trio.open_tcp_stream("127.0.0.1", self._target)
        except OSError:
            await trio.aclose_forcefully(near)
            return
        self._streams |= {near, far}
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, near, far)
                nursery.start_soon(self._pump, far, near)
        finally:
            self._streams -= {near, far}

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            async for chunk in source:
                if not self.black_hole:
                    await sink.send_all(chunk)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(source)
            await trio.aclose_forcefully(sink)


def _answers(port: int) -> bool:
    """Whether an AMQP server speaks here: it answers a wrong header with its own."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
            sock.sendall(b"AMQP\x00\x00\x00\x00")
            return sock.recv(4) == b"AMQP"
    except OSError:
        return False


def _wait_port(port: int, deadline: float) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=20).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def client_context(authority: Path) -> ssl.SSLContext:
    """Trusts this authority only."""
    return ssl.create_default_context(cafile=str(authority))


def _write_certificates(directory: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    server_key = ec.generate_private_key(ec.SECP256R1())
    base = x509.CertificateBuilder().not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    authority = (
        base.subject_name(name("test authority"))
        .issuer_name(name("test authority"))
        .public_key(authority_key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    server = (
        base.subject_name(name("rabbit"))
        .issuer_name(name("test authority"))
        .public_key(server_key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1")), x509.DNSName("localhost")]), False
        )
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (directory / "authority.pem").write_bytes(authority.public_bytes(pem))
    (directory / "server.pem").write_bytes(server.public_bytes(pem))
    key = server_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "server.key").write_bytes(key)
