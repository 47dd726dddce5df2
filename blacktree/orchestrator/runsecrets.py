"""What containers are given and nobody else may see: values of `run` secrets, and logins for the images they pull."""

from contextlib import suppress

from blacktree.errors import BadRequest, NotFound, TooLarge
from blacktree.orchestrator.enclosure import host_of
from blacktree.orchestrator.orders import Plan
from blacktree.orchestrator.vault import Vault
from blacktree.rpc.replica import MAX_SECRET_BYTES, RegistryLogin
from blacktree.runspec import RunSpec
from blacktree.secret import SecretKind, parse_login


class RunSecrets:
    """Looks them up anew at each use, so a value that was replaced counts from the next start on."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def check(self, run: RunSpec, source: str | None, repository: str | None) -> None:
        """Raises `BadRequest` (code `unknown_secret`) for a name without a value, `Locked`, `StorageFailed`."""
        await self._values(run, source, repository)

    async def of(self, plan: Plan) -> dict[str, bytes]:
        """The values by name. Raises as `check`."""
        return await self._values(plan.run, plan.source, plan.repository)

    async def _values(self, run: RunSpec, source: str | None, repository: str | None) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for name in run.secrets:
            value = await self._vault.value(name, kind=SecretKind.RUN, source=source, repository=repository)
            if value is None:
                raise BadRequest(
                    f"spec.run.secrets: there is no run secret `{name}` for this deployment",
                    path="spec.run.secrets",
                    code="unknown_secret",
                    advice="`blacktree secret list` shows names, kinds and scopes",
                )
            found[name] = value
        if sum(map(len, found.values())) > MAX_SECRET_BYTES:
            raise TooLarge(
                f"spec.run.secrets: their values have more than {MAX_SECRET_BYTES} bytes together",
                path="spec.run.secrets",
                advice="put what is large into a volume",
            )
        return found

    async def remove(self, name: str, *, actor: str = "") -> None:
        """Forget one; unknown is fine."""
        with suppress(NotFound):
            await self._vault.remove(name, kind=SecretKind.RUN, actor=actor)

    async def logins(self, plan: Plan) -> dict[str, RegistryLogin]:
        """The login for the registry of an image that is pulled, if there is one."""
        if not plan.pull:
            return {}
        host = host_of(plan.image)
        value = await self._vault.value(host, kind=SecretKind.REGISTRY, source=plan.source, repository=plan.repository)
        if value is None:
            return {}
        login = parse_login(value)
        return {host: RegistryLogin(username=login.username, password=login.password)}
