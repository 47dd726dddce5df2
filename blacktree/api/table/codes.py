"""The error codes of the table, and the kind of error each is."""

from blacktree.api.faults import numbers
from blacktree.errors import BadRequest, BlacktreeError, Broken, Conflict, NotAllowed, NotFound, TooLarge, Unavailable

_KINDS: dict[type[BlacktreeError], str] = {
    BadRequest: """
        bad_request invalid malformed bad_query bad_range bad_media_type bad_accept length_required too_slow
        upgrade_required unknown_kind empty_value repository_refused credentials_in_address local_source_refused
        source_is_ourselves unknown_secret secrets_key secrets_key_file invalid_key volume_refused
    """,
    TooLarge: "too_large worker_full",
    NotFound: "not_found log_gone",
    Conflict: """
        conflict is_a_part not_ended not_stopped busy port_taken nothing_to_start nothing_earlier not_built
        source_configured target_configured source_damaged secret_locked token_exists farm_token no_secrets_key
    """,
    NotAllowed: """
        not_allowed unauthorized host_not_allowed origin_not_allowed signature_missing signature_wrong source_required
        role_missing farm_wide
    """,
    Unavailable: """
        unavailable rate_limited draining storage_failed too_many_requests too_many_watches too_many_deliveries
    """,
    Broken: "internal",
}
KIND_OF: dict[str, type[BlacktreeError]] = {code: kind for kind, codes in _KINDS.items() for code in codes.split()}


def numbers_of(code: str) -> tuple[int, int]:
    """The JSON-RPC code and the HTTP status of an error with this code."""
    return numbers(KIND_OF.get(code, BadRequest)("", code=code))
