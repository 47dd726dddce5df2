"""BuildKit's session: the engine asks us for files, logins and secrets over a connection that it has taken over."""

import secrets
from collections.abc import Callable, Mapping, Sequence

import h11
import trio

from blacktree.concurrency.threads import in_loose_thread
from blacktree.errors import EngineLost
from blacktree.providers.base import Context, Entry, Login
from blacktree.providers.docker.filesync import FileSync
from blacktree.providers.docker.generated import buildkit_pb2 as wire
from blacktree.providers.docker.grpc import NOT_FOUND, UNIMPLEMENTED, UNKNOWN, Call, CallFailed, CallServer, PeerGone
from blacktree.providers.docker.stream import MAX_HEAD_BYTES, Connector

HEALTH = "/grpc.health.v1.Health/Check"
DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
GET_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
_METHODS = (HEALTH, DIFF_COPY, CREDENTIALS, GET_SECRET)


class Session:
    """One build's session. `failure` is what went wrong on our side, if anything: it explains the engine's error."""

    def __init__(
        self,
        connector: Connector,
        context: Context,
        entries: Sequence[Entry],
        *,
        secrets_: Mapping[str, bytes],
        login: Callable[[str], Login | None],
    ) -> None:
        self.id = secrets.token_hex(16)
        self.failure: Exception | None = None
        self.files = FileSync(context, entries)
        self._connector = connector
        self._key = context.key
        self._secrets = secrets_
        self._login = login
        self._logins: dict[str, Login | None] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled or until the engine hangs up; started once the engine has accepted it."""
        stream = await self._connector.connect()
        try:
            rest = await self._upgrade(stream)
            server = CallServer(stream, self._handle)
            await server.run(rest, task_status=task_status)
        finally:
            await trio.aclose_forcefully(stream)

    async def _upgrade(self, stream: trio.abc.Stream) -> bytes:
        """Ask for the connection to be taken over; answers with what the engine has sent since."""
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        # The key names the copy that the engine keeps of what was sent before: one per source.
        key = self._key.encode("utf-8", "backslashreplace").hex()[:512]
        fields = [
            ("Host", "docker"),
            ("Connection", "Upgrade"),
            ("Upgrade", "h2c"),
            ("X-Docker-Expose-Session-Uuid", self.id),
            ("X-Docker-Expose-Session-Name", "blacktree"),
            ("X-Docker-Expose-Session-Sharedkey", key),
            *(("X-Docker-Expose-Session-Grpc-Method", method) for method in _METHODS),
        ]
        request = h11.Request(method="POST", target=self._connector.target("/session"), headers=fields)
        try:
            await stream.send_all((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
            while (event := connection.next_event()) is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(65536)))
        except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
            raise EngineLost(f"the engine at {self._connector.address} refused a session: {error}") from None
        if not isinstance(event, h11.InformationalResponse) or event.status_code != 101:
            raise EngineLost(
                f"the engine at {self._connector.address} does not open BuildKit sessions",
                code="session_refused",
                advice="ask for the classic builder (--builder classic), or use Docker 18.09 or newer",
                again=False,
            )
        return connection.trailing_data[0]

    async def _handle(self, call: Call) -> None:
        try:
            match call.method:
                case method if method == HEALTH:
                    await call.send(wire.HealthResponse(status=1).SerializeToString())
                case method if method == DIFF_COPY:
                    await self.files.serve(call)
                case method if method == CREDENTIALS:
                    asked = wire.CredentialsRequest.FromString(await call.receive() or b"")
                    await call.send(await self._credentials(asked.host))
                case method if method == GET_SECRET:
                    name = wire.GetSecretRequest.FromString(await call.receive() or b"").id
                    if name not in self._secrets:
                        raise CallFailed(NOT_FOUND, f"secret {name}: not found")
                    await call.send(wire.GetSecretResponse(data=self._secrets[name]).SerializeToString())
                case other:
                    raise CallFailed(UNIMPLEMENTED, f"{other} is not offered here")
        except (CallFailed, PeerGone):
            raise
        except Exception as error:
            # The edge of one call: the build says it, with the real reason, when the engine gives up.
            self.failure = error
            raise CallFailed(UNKNOWN, f"{type(error).__name__}") from None

    async def _credentials(self, host: str) -> bytes:
        if host not in self._logins:
            # A credential helper may run: not on this thread.
            self._logins[host] = await in_loose_thread(lambda: self._login(host))
        login = self._logins[host]
        answer = wire.CredentialsResponse()
        if login is not None:
            answer = wire.CredentialsResponse(username=login.username, secret=login.password)
        return answer.SerializeToString()
