"""An endpoint's URL in place of a base, with the spelling that was meant."""

import pytest

from kdproxy.settings.base_url import base_of

HOST = "https://host"


@pytest.mark.parametrize(
    ("path", "base"),
    [
        ("/v1/chat/completions", "/v1"),
        ("/v1/chat/completions/", "/v1"),
        ("/openai/v1/chat/completions", "/openai/v1"),
        ("/v1/completions", "/v1"),
        ("/v1/embeddings", "/v1"),
        ("/v1/responses", "/v1"),
        ("/v1/messages", "/v1"),
        ("/v1/messages/count_tokens", "/v1"),
        ("/v1/models", "/v1"),
        ("/v1/audio/speech", "/v1"),
        ("/v1beta/models/gemini-2.5-flash:generateContent", "/v1beta"),
        ("/v1beta/models/gemini-2.5-flash:streamGenerateContent", "/v1beta"),
        ("/api/chat", ""),
        ("/openai/deployments/gpt-4o/chat/completions", "/openai/deployments/gpt-4o"),
        ("/v1/v1", "/v1"),
        ("/v1/v1/", "/v1"),
        ("/v1/v1/chat/completions", "/v1"),
    ],
)
def test_an_endpoint_is_reported_with_the_base_that_was_meant(path: str, base: str) -> None:
    assert base_of(HOST + path) == HOST + base
    assert base_of(HOST + base) is None


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/api/paas/v4", "/v1beta/openai", "/messages", "/v1/v2"])
def test_a_base_is_taken(path: str) -> None:
    assert base_of(HOST + path) is None
