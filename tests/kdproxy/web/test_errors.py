"""Own errors in the shape that each official client reads."""

import json

import pytest

from kdproxy.errors import KdproxyError
from kdproxy.web import errors

ERROR = KdproxyError(
    'Said "so" — naïve\n.',
    hint="Do this.",
    code="some_code",
    http_status=503,
    retryable=True,
    retry_after_seconds=0.2,
)


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "gemini", "anything"])
def test_the_hint_is_in_the_message(dialect: str) -> None:
    message = json.loads(errors.body(ERROR, dialect))["error"]["message"]
    assert message.startswith("kdproxy: Said")
    assert message.endswith("Do this.")


def test_each_dialect_has_its_shape() -> None:
    openai = json.loads(errors.body(ERROR, "openai"))["error"]
    assert set(openai) == {"message", "type", "param", "code"}
    anthropic = json.loads(errors.body(ERROR, "anthropic"))
    assert (anthropic["type"], anthropic["error"]["type"]) == ("error", "overloaded_error")
    gemini = json.loads(errors.body(ERROR, "gemini"))["error"]
    assert (gemini["code"], gemini["status"]) == (503, "UNAVAILABLE")


def test_headers_show_clients_whether_and_when_to_retry() -> None:
    found = dict(errors.headers(ERROR))
    assert found["x-should-retry"] == "true"
    assert (found["retry-after"], found["retry-after-ms"]) == ("1", "200")
    assert found["Cache-Status"] == "kdproxy; detail=some_code"
    final = dict(errors.headers(KdproxyError("No.", hint="Stop.")))
    assert final["x-should-retry"] == "false"
    assert "retry-after" not in final
