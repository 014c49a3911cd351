"""Which paths are questions whose answers are kept, by their ends."""

import pytest

from kdproxy.providers.question import endpoint_of


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "chat.completions"),
        ("/openai/deployments/d/chat/completions", "chat.completions"),
        ("/v1/completions", "completions"),
        ("/completions", "completions"),
        ("/v1/fim/completions", "completions"),
        ("/v1/agents/completions", None),
        ("/v1/chat/completions/chatcmpl-1", None),
        ("/v1/chat/completions/", None),
        ("/v1/responses", "responses"),
        ("/v1/responses/resp_1/cancel", None),
        ("/v1/messages", "messages"),
        ("/v1/messages/batches", None),
        ("/v1/threads/t/messages", None),
        ("/v1beta/models/m:streamGenerateContent", "generateContent"),
        ("/v1beta/models/m:batchGenerateContent", None),
        ("/v1/responses/compact", "responses.compact"),
        ("/v1/responses/input_tokens", "responses.input_tokens"),
        ("/v1/images/edits", "images.edits"),
        ("/v1/images/variations", None),
        ("/v1beta/models/e:embedContent", "embedContent"),
        ("/v1beta/models/e:batchEmbedContents", "batchEmbedContents"),
        ("/v1beta/models/e:asyncBatchEmbedContent", None),
        ("/v1beta/models/e:countTokens", "countTokens"),
        ("/v1beta/interactions", "interactions"),
        ("/v1beta/interactions/i1:cancel", None),
        ("/v1/rerank", "rerank"),
        ("/v2/rerank", "rerank"),
        ("/rerank", "rerank"),
        ("/score", "score"),
        ("/v1/score", "score"),
        ("/highscore", None),
        ("/pooling", "pooling"),
        ("/classify", "classify"),
        ("/tokenize", "tokenize"),
        ("/detokenize", None),
        ("/projects/p/score", None),
    ],
)
def test_a_path(path: str, name: str | None) -> None:
    endpoint = endpoint_of("POST", path)
    assert (None if endpoint is None else endpoint.name) == name
    assert endpoint_of("GET", path) is None
