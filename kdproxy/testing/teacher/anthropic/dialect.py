"""Anthropic's dialect: which endpoint a path names, and what every answer carries."""

from kdproxy.testing.teacher.answer import Json, Reply, Whole, sse, whole
from kdproxy.testing.teacher.anthropic.error import error_body, limit_headers, refuse
from kdproxy.testing.teacher.anthropic.message import answer_message, count_tokens
from kdproxy.testing.teacher.call import TeacherCall
from kdproxy.testing.teacher.fault import Fault, Problem, bad_request, not_found
from kdproxy.testing.teacher.limit import LimitState
from kdproxy.testing.teacher.stamp import Stamp

_MODELS = ("claude-sonnet-5", "claude-haiku-4-5")
_OVERLOADED = Fault(problem=Problem.OVERLOADED, message="Overloaded")
_ORGANIZATION = "00000000-0000-4000-8000-000000000000"


class AnthropicDialect:
    """Answers messages, count_tokens and models."""

    def answer(self, call: TeacherCall, stamp: Stamp) -> Reply:
        if "anthropic-version" not in call.headers:
            raise bad_request("anthropic-version: header is required")
        if call.method == "POST" and call.path.endswith("/messages"):
            return answer_message(_question(call), stamp)
        if call.method == "POST" and call.path.endswith("/messages/count_tokens"):
            return count_tokens(_question(call))
        if call.method == "GET" and call.path.endswith("/models"):
            data = [_model(name) for name in _MODELS]
            return whole({"data": data, "has_more": False, "first_id": _MODELS[0], "last_id": _MODELS[-1]})
        if call.method == "GET" and "/models/" in call.path:
            return whole(_model(call.path.rsplit("/", 1)[-1]))
        raise not_found("Not found")

    def refuse(self, fault: Fault, call: TeacherCall) -> Whole:
        return refuse(fault, _request_id(call))

    def error_event(self, call: TeacherCall, *, position: int) -> bytes:
        return sse(error_body(_OVERLOADED, _request_id(call)), event="error")

    def headers(self, call: TeacherCall, stamp: Stamp, limit: LimitState) -> dict[str, str]:
        return {
            "request-id": _request_id(call),
            "anthropic-organization-id": _ORGANIZATION,
            **limit_headers(limit),
        }


def _request_id(call: TeacherCall) -> str:
    return f"req_{call.number:024d}"


def _model(name: str) -> Json:
    return {"type": "model", "id": name, "display_name": name, "created_at": "2025-09-29T00:00:00Z"}


def _question(call: TeacherCall) -> Json:
    if not isinstance(call.json, dict):
        raise bad_request("The request body is not valid JSON")
    return call.json
