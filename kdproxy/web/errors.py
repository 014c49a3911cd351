"""The proxy's own errors, in the format of the provider whose dialect the client speaks."""

from typing import Any

import orjson

from kdproxy.core import cache_status
from kdproxy.core.models import HeaderPairs
from kdproxy.errors import KdproxyError

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_RPC_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def body(error: KdproxyError, dialect: str) -> bytes:
    """Return an error body in the provider's format, with the hint in its message."""
    message = f"kdproxy: {error}"
    shaped: dict[str, Any]
    match dialect:
        case "anthropic":
            kind = _ANTHROPIC_TYPES.get(error.http_status, "api_error")
            shaped = {"type": "error", "error": {"type": kind, "message": message, "code": error.code}}
        case "gemini":
            status = _RPC_STATUS.get(error.http_status, "INTERNAL")
            shaped = {"error": {"code": error.http_status, "message": message, "status": status}}
        case "aws":
            shaped = {"__type": "ValidationException", "message": message, "code": error.code}
        case _:
            shaped = {"error": {"message": message, "type": "kdproxy_error", "param": None, "code": error.code}}
    return orjson.dumps(shaped)


def late_event(error: KdproxyError, said: bytes | None, dialect: str) -> bytes:
    """Return an error as the last event of a stream: the provider's own error if it is JSON, else ours."""
    try:
        members = None if said is None else orjson.loads(said)
    except orjson.JSONDecodeError:
        members = None
    is_error = isinstance(members, dict) and "error" in members
    name = b"event: error\n" if dialect == "anthropic" else b""
    return name + b"data: " + (orjson.dumps(members) if is_error else body(error, dialect)) + b"\n\n"


def headers(error: KdproxyError) -> HeaderPairs:
    """Return the headers of an error reply, by which the official clients decide on a retry."""
    pairs = [
        ("Content-Type", "application/json"),
        (cache_status.HEADER, cache_status.refused(error.code)),
        ("x-should-retry", "true" if error.retryable else "false"),
    ]
    if error.retry_after_seconds is not None:
        pairs.append(("retry-after", str(max(1, round(error.retry_after_seconds)))))
        pairs.append(("retry-after-ms", str(max(1, round(error.retry_after_seconds * 1000)))))
    return tuple(pairs)
