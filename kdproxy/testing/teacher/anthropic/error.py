"""Anthropic's errors (docs.claude.com/en/api/errors) and limit headers (/en/api/rate-limits)."""

from datetime import UTC, datetime, timedelta

from kdproxy.testing.teacher.answer import Json, Whole, dump
from kdproxy.testing.teacher.fault import Fault, Problem
from kdproxy.testing.teacher.limit import LimitState

_TOKENS_PER_REQUEST = 200

# problem -> status, type
_SHAPES: dict[Problem, tuple[int, str]] = {
    Problem.RATE_LIMITED: (429, "rate_limit_error"),
    Problem.OUT_OF_QUOTA: (400, "invalid_request_error"),
    Problem.OVERLOADED: (529, "overloaded_error"),
    Problem.SERVER_ERROR: (500, "api_error"),
    Problem.UNAUTHORIZED: (401, "authentication_error"),
    Problem.NOT_FOUND: (404, "not_found_error"),
    Problem.BAD_REQUEST: (400, "invalid_request_error"),
}
_OUT_OF_QUOTA = (
    "Your credit balance is too low to access the Anthropic API. "
    "Please go to Plans & Billing to upgrade or purchase credits."
)


_BY_STATUS = {500: "api_error", 504: "timeout_error", 529: "overloaded_error"}


def error_body(fault: Fault, request_id: str) -> Json:
    kind = _BY_STATUS.get(fault.status or 0, _SHAPES[fault.problem][1])
    message = _OUT_OF_QUOTA if fault.problem is Problem.OUT_OF_QUOTA else fault.message
    error = {"type": kind, "message": message}
    return {"type": "error", "error": error, "request_id": request_id}


def refuse(fault: Fault, request_id: str) -> Whole:
    status = fault.status or _SHAPES[fault.problem][0]
    return Whole(body=dump(error_body(fault, request_id)), status=status, headers=fault.wait_headers)


def limit_headers(limit: LimitState) -> dict[str, str]:
    """Return the four dimensions; resets are RFC 3339, in whole seconds."""
    reset = (datetime.now(UTC) + timedelta(seconds=limit.reset_seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    headers: dict[str, str] = {}
    for dimension, factor in (
        ("requests", 1),
        ("tokens", 2 * _TOKENS_PER_REQUEST),
        ("input-tokens", _TOKENS_PER_REQUEST),
        ("output-tokens", _TOKENS_PER_REQUEST),
    ):
        headers[f"anthropic-ratelimit-{dimension}-limit"] = str(limit.limit * factor)
        headers[f"anthropic-ratelimit-{dimension}-remaining"] = str(limit.remaining * factor)
        headers[f"anthropic-ratelimit-{dimension}-reset"] = reset
    return headers
