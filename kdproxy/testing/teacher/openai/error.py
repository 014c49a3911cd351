"""OpenAI's errors, limit headers (platform.openai.com/docs/guides: error-codes, rate-limits); Azure too."""

from kdproxy.testing.teacher.answer import Json, Whole, whole
from kdproxy.testing.teacher.fault import Fault, Problem
from kdproxy.testing.teacher.limit import LimitState

_TOKENS_PER_REQUEST = 200

# problem -> status, type, code
_SHAPES: dict[Problem, tuple[int, str, str | None]] = {
    Problem.RATE_LIMITED: (429, "requests", "rate_limit_exceeded"),
    Problem.OUT_OF_QUOTA: (429, "insufficient_quota", "insufficient_quota"),
    Problem.OVERLOADED: (503, "server_error", "server_is_overloaded"),
    Problem.SERVER_ERROR: (500, "server_error", None),
    Problem.UNAUTHORIZED: (401, "invalid_request_error", None),
    Problem.NOT_FOUND: (404, "invalid_request_error", None),
    Problem.BAD_REQUEST: (400, "invalid_request_error", None),
}


def error_body(fault: Fault, *, is_azure: bool = False) -> Json:
    _, kind, code = _SHAPES[fault.problem]
    message = fault.message
    if fault.problem is Problem.RATE_LIMITED and is_azure:
        # Azure: the code is the status as a string, and the wait stands in the text.
        wait = f"Please retry after {round(fault.wait_seconds or 0)} seconds."
        return {"error": {"code": "429", "message": f"{message}. {wait}"}}
    if fault.problem is Problem.RATE_LIMITED and fault.wait_seconds is not None:
        message = f"{message}. Please try again in {go_duration(fault.wait_seconds)}."
    return {"error": {"message": message, "type": kind, "param": fault.param, "code": code}}


def refuse(fault: Fault, *, is_azure: bool) -> Whole:
    status = fault.status or _SHAPES[fault.problem][0]
    return whole(error_body(fault, is_azure=is_azure), status=status, headers=fault.wait_headers)


def limit_headers(limit: LimitState) -> dict[str, str]:
    reset = go_duration(limit.reset_seconds)
    return {
        "x-ratelimit-limit-requests": str(limit.limit),
        "x-ratelimit-remaining-requests": str(limit.remaining),
        "x-ratelimit-reset-requests": reset,
        "x-ratelimit-limit-tokens": str(limit.limit * _TOKENS_PER_REQUEST),
        "x-ratelimit-remaining-tokens": str(limit.remaining * _TOKENS_PER_REQUEST),
        "x-ratelimit-reset-tokens": reset,
    }


def go_duration(seconds: float) -> str:
    """Write a duration as Go prints it: 12ms, 1.5s, 6m0s, 1h2m3s."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{round(rest, 3):g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
