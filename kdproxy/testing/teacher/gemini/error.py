"""Google's errors: google.rpc.Status with details (ai.google.dev/gemini-api/docs/troubleshooting).

There are no limit headers: a wait stands in the body.
"""

from kdproxy.testing.teacher.answer import Json, Whole, whole
from kdproxy.testing.teacher.fault import Fault, Problem

_TYPES = "type.googleapis.com/google.rpc."

# problem -> code, status
_SHAPES: dict[Problem, tuple[int, str]] = {
    Problem.RATE_LIMITED: (429, "RESOURCE_EXHAUSTED"),
    Problem.OUT_OF_QUOTA: (429, "RESOURCE_EXHAUSTED"),
    Problem.OVERLOADED: (503, "UNAVAILABLE"),
    Problem.SERVER_ERROR: (500, "INTERNAL"),
    Problem.UNAUTHORIZED: (401, "UNAUTHENTICATED"),
    Problem.NOT_FOUND: (404, "NOT_FOUND"),
    Problem.BAD_REQUEST: (400, "INVALID_ARGUMENT"),
}


_BY_STATUS = {500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}


def error_body(fault: Fault) -> Json:
    code, status = _SHAPES[fault.problem]
    if fault.status in _BY_STATUS:
        code, status = fault.status, _BY_STATUS[fault.status]
    error: Json = {"code": code, "message": fault.message, "status": status}
    if fault.problem in (Problem.RATE_LIMITED, Problem.OUT_OF_QUOTA):
        error["details"] = _quota_details(fault)
    return {"error": error}


def refuse(fault: Fault) -> Whole:
    # Not `wait_headers`: only headers that the script names are sent.
    return whole(error_body(fault), status=fault.status or _SHAPES[fault.problem][0], headers=fault.headers)


def _quota_details(fault: Fault) -> list[Json]:
    """Name the quota: a spent one is the daily one of the free tier, which no retry delay helps."""
    is_daily = fault.per_day or fault.problem is Problem.OUT_OF_QUOTA
    violation = {
        "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
        "quotaId": f"GenerateRequestsPer{'Day' if is_daily else 'Minute'}PerProjectPerModel-FreeTier",
        "quotaDimensions": {"location": "global", "model": "gemini"},
        "quotaValue": "10",
    }
    details: list[Json] = [{"@type": f"{_TYPES}QuotaFailure", "violations": [violation]}]
    if fault.wait_seconds is not None:
        details.append({"@type": f"{_TYPES}RetryInfo", "retryDelay": f"{fault.wait_seconds:g}s"})
    return details
