"""TLS between the daemons: 1.2 or newer, HTTP/2 by ALPN, client certificates when a CA is given."""

import ipaddress
import ssl
from pathlib import Path

import msgspec

from blacktree.errors import BadRequest, NotAllowed


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Where this side's certificate lies, and the CA that the other side's must come from.

    `ca_file` on a server: clients must show a certificate of it. On a client: the server's must come from it;
    empty: from a CA the system trusts.
    """

    certificate_file: str = ""
    key_file: str = ""
    ca_file: str = ""


def server_context(tls: Tls) -> ssl.SSLContext:
    """Raises `BadRequest` (code `invalid_config`) when a file is missing, unreadable, or does not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if not tls.certificate_file:
        raise _invalid(
            "TLS is set up by half: there is no certificate of ours", "set tls_certificate_file and tls_key_file"
        )
    _load_certificate(context, tls)
    if tls.ca_file:
        _load_ca(context, tls.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return _common(context)


def client_context(tls: Tls) -> ssl.SSLContext:
    """As `server_context`; host names are checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca_file:
        _load_ca(context, tls.ca_file)
    else:
        context.load_default_certs()
    if tls.certificate_file:
        _load_certificate(context, tls)
    return _common(context)


def _common(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    # RFC 9113, section 9.2: no compression; no renegotiation either.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def _load_certificate(context: ssl.SSLContext, tls: Tls) -> None:
    key = tls.key_file or tls.certificate_file
    for path in (tls.certificate_file, key):
        _readable(path)
    try:
        # A key with a passphrase would ask on the terminal; a daemon has none.
        context.load_cert_chain(tls.certificate_file, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise _invalid(
            f"cannot use {tls.certificate_file} with {key}: {reason}",
            "both must be PEM, the key without passphrase, and belong together",
        ) from None


def _load_ca(context: ssl.SSLContext, path: str) -> None:
    _readable(path)
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        raise _invalid(
            f"cannot use {path} as CA: {getattr(error, 'reason', None) or error}", "it must be PEM"
        ) from None


def _readable(path: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise _invalid(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from None


def _invalid(message: str, advice: str) -> BadRequest:
    return BadRequest(message, code="invalid_config", advice=advice)


def is_local(address: str) -> bool:
    """Whether `host:port` or `unix:/path` stays on this machine. Names other than `localhost` do not count."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_tls(address: str, tls: Tls | None, allow_plaintext: bool) -> None:
    """Refuses less than TLS with certificates on both sides beyond this machine.

    In plaintext the join token would travel in clear, and job secrets with it.
    """
    if allow_plaintext or is_local(address) or (tls is not None and tls.certificate_file and tls.ca_file):
        return
    lacking = "no TLS" if tls is None else f"TLS without {'a CA' if tls.certificate_file else 'a certificate of ours'}"
    raise NotAllowed(
        f"{address} is reachable from other machines and has {lacking}",
        code="plaintext_refused",
        advice="configure tls_certificate_file, tls_key_file and the other side's CA, or set"
        " allow_plaintext_grpc = true if the network is trusted",
    )
