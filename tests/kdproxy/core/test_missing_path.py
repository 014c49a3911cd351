"""A 404 for a path that nobody handles, told from one for a model that nobody has."""

import pytest

from kdproxy.core.missing_path import missing_path


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"detail":"Not Found"}'),
        (405, b'{"detail":"Method Not Allowed"}'),
        (404, b'{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}'),
        (404, b"404 page not found\n"),
        (404, b'{"error":{"code":"404","message": "Resource not found"}}'),
        (404, b'{"message":"no Route matched with those values","request_id":"1"}'),
        (404, b"Cannot POST /chat/completions"),
        (404, b'{"type":"error","error":{"type":"not_found_error","message":"Not Found"}}'),
        (404, b'{"error":"not found"}'),
        (404, b'"Not Found"'),
        (404, b"<!DOCTYPE html><html><body>The requested URL was not found.</body></html>"),
        (404, b""),
    ],
    ids=str,
)
def test_words_for_a_missing_path(status: int, body: bytes) -> None:
    assert missing_path(status, body) is not None


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"error":{"message":"The model `gpt-5x` does not exist","code":"model_not_found"}}'),
        (404, b'{"error":{"message":"Invalid URL (POST /v1/v1/chat/completions)"}}'),
        (404, b'{"error":{"message":"model \'m\' not found, try pulling it first"}}'),
        (404, b'{"type":"error","error":{"type":"not_found_error","message":"model: claude-9"}}'),
        (404, b'{"detail":"The deployment for this resource does not exist"}'),
        (404, b'{"detail":[{"loc":["body"],"msg":"not found"}]}'),
        (404, b"\xff\xfe"),
        (404, b"not found " * 100),
        (404, b"[]"),
        (200, b'{"detail":"Not Found"}'),
        (400, b"Not Found"),
    ],
    ids=str,
)
def test_anything_else_is_the_providers_own_answer(status: int, body: bytes) -> None:
    assert missing_path(status, body) is None
