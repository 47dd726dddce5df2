"""The one table from boto3's words to our errors. botocore is loaded by whoever raises these."""

from typing import Any

from blacktree.errors import StepFailed

_LOGIN = (
    "give the worker credentials the way the AWS tools read them: a role, AWS_PROFILE with ~/.aws, or AWS_ACCESS_KEY_ID"
)

# The service's code → (ours, again, advice).
_CODES: dict[str, tuple[str, bool, str]] = {}
for _names, _what in (
    (
        ("ExpiredToken", "ExpiredTokenException", "RequestExpired"),
        ("aws_credentials_expired", False, "renew them (aws sso login, or a new session token), or use a role"),
    ),
    (
        ("UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch",
         "AuthFailure", "InvalidAccessKeyId", "IncompleteSignature"),
        ("aws_credentials_invalid", False, "check the access key, and that this machine's clock is right"),
    ),
    (
        ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "OptInRequired"),
        ("aws_denied", False, "allow it in the IAM policy of the worker's role or user"),
    ),
    (
        ("ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded", "SlowDown"),
        ("registry_throttled", True, "AWS asks for patience"),
    ),
    (
        ("ServerException", "InternalFailure", "InternalError", "ServiceUnavailable", "ServiceUnavailableException"),
        ("registry_unavailable", True, ""),
    ),
    (
        ("RepositoryNotFoundException",),
        ("repository_missing", False, "make it, or switch on worker.ecr_create_repositories"),
    ),
    (
        ("LimitExceededException",),
        ("aws_limit", False, "a limit of the account is reached: remove something, or have it raised"),
    ),
    (
        ("InvalidParameterException", "ValidationException"),
        ("aws_invalid", False, "check the image's name: ECR takes lower-case letters, digits and . _ - /"),
    ),
):  # fmt: skip
    _CODES |= dict.fromkeys(_names, _what)

# botocore's own exceptions by the name of their class, most of them for credentials that it could not find or make.
_CLASSES: dict[str, tuple[str, bool, str]] = (
    dict.fromkeys(
        ("NoCredentialsError", "PartialCredentialsError", "NoAuthTokenError"),
        ("aws_credentials_missing", False, _LOGIN),
    )
    | dict.fromkeys(
        ("ProfileNotFound", "ConfigNotFound", "ConfigParseError", "InvalidConfigError", "InfiniteLoopConfigError"),
        ("aws_credentials_missing", False, "check worker.ecr_profile, AWS_PROFILE and ~/.aws/config"),
    )
    | dict.fromkeys(
        ("TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError", "SSOError"),
        ("aws_credentials_expired", False, "run `aws sso login` as the worker's user"),
    )
    | dict.fromkeys(
        ("CredentialRetrievalError", "MetadataRetrievalError"), ("registry_aws_credentials", True, _LOGIN)
    )
    | dict.fromkeys(
        ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError",
         "ProxyConnectionError", "ConnectionError", "HTTPClientError", "SSLError"),
        ("registry_unreachable", True, "check the network, and worker.ecr_endpoint_url if it is set"),
    )
)  # fmt: skip


def service_code(error: BaseException) -> str:
    """The AWS service's own code of an error, such as `RepositoryNotFoundException`; empty if it has none."""
    answer: Any = getattr(error, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""


def failure(error: Exception, what: str) -> StepFailed:
    """boto3's error as ours. `what` was tried, e.g. `ecr:CreateRepository`."""
    code = service_code(error)
    found = _CODES.get(code)
    if found is None and code:
        status = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        found = ("registry_unavailable", True, "") if status >= 500 else None
    if found is None:
        found = next((_CLASSES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _CLASSES), None)
    name, again, advice = found or ("aws_failed", False, "")
    return StepFailed(f"AWS: {what}: {error}", code=name, again=again, advice=advice, step="push")
