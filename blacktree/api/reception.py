"""What every conversation at the door shares: who is let in, how often, and what trail they leave."""

from collections.abc import Callable, Mapping

from blacktree.api.auth import Actor, Auth, Headers
from blacktree.api.cors import Cors
from blacktree.api.limits import Limits, network_of
from blacktree.api.presence import Presence
from blacktree.api.proxies import Proxies, plain_address
from blacktree.api.trail import Trail
from blacktree.config import DoorConfig
from blacktree.orchestrator.control import Control


class Reception:
    """`link`: the address of a page that lets a browser in once, with the token of this id."""

    def __init__(self, auth: Auth, control: Control, config: DoorConfig, link: Callable[[str], str]) -> None:
        """Raises `BadRequest` for a proxy that is no address."""
        self.auth = auth
        self.link = link
        self.cors = Cors(config.cors_origins)
        self.limits = Limits(config)
        self.proxies = Proxies(config.trusted_proxies, config.forwarded_for_header, config.forwarded_proto_header)
        self.presence = Presence(auth, control.tokens)
        self.trail = Trail(control.audit)

    def came(self, headers: Headers, peer: str, secure: bool) -> tuple[str, bool]:
        """Where a request comes from, and whether by TLS. Raises `Unavailable` (code `rate_limited`)."""
        address, secure = self.proxies.seen(headers, plain_address(peer), secure)
        self.limits.arrived(address)
        return address, secure

    def network(self, headers: Mapping[str, str], peer: str) -> str:
        """The network that a request comes from, as limits count."""
        return network_of(self.proxies.seen(headers, plain_address(peer), False)[0])

    def known(self, headers: Headers, port: int, address: str) -> Actor | None:
        """Whoever the headers prove, or None. Raises `Unavailable` (code `rate_limited`)."""
        actor = self.auth.actor(headers, port, address)
        if actor is not None:
            self.limits.known(actor.token)
        return actor
