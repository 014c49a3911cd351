"""Readers and judges see what clients and providers send, so no JSON may make one raise."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdproxy.core import sse
from kdproxy.core.models import Question, Upstream
from kdproxy.providers.base import Broken, Complete, Criteria, Endpoint, NotAQuestion
from kdproxy.providers.question import ENDPOINTS, MODELS, Asking, read, v1_key
from kdproxy.providers.stored import stored_request

NAMES = st.sampled_from(
    [
        *("model", "messages", "role", "content", "type", "text", "tools", "stream", "stream_options", "n", "input"),
        *("system", "prompt", "previous_response_id", "response_format", "instructions", "generationConfig", "parts"),
        *("contents", "systemInstruction", "candidateCount", "temperature", "include_usage", "format", "version"),
        *("choices", "index", "finish_reason", "usage", "prompt_tokens_details", "cached_tokens", "delta", "error"),
        *("candidates", "finishReason", "usageMetadata", "message", "stop_reason", "status", "response", "id"),
        *("data", "embedding", "b64_json", "results", "input_tokens", "cache_control", "functionDeclarations"),
    ]
)
WORDS = st.sampled_from(
    [
        *("user", "assistant", "system", "model", "text", "function", "custom", "json_schema", "stop", "message"),
        *("message_start", "message_delta", "message_stop", "error", "response.completed", "completed", "b64_json"),
        *("speech.audio.done", "transcript.text.done", "image_generation.completed", "x"),
    ]
)
LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False) | WORDS
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
OBJECT = st.dictionaries(NAMES, JSON, max_size=6)
PATHS = {
    "messages": "/v1/messages",
    "messages.count_tokens": "/v1/messages/count_tokens",
    "generateContent": "/v1beta/models/g:generateContent",
    "chat.completions": "/v1/chat/completions",
    "completions": "/v1/completions",
}
every_endpoint = pytest.mark.parametrize("endpoint", [*ENDPOINTS, MODELS], ids=lambda endpoint: endpoint.name)


def path_of(endpoint: Endpoint) -> str:
    return PATHS.get(endpoint.name, "/v1/" + endpoint.name.replace(".", "/"))


@every_endpoint
@settings(max_examples=60)
@given(members=OBJECT, is_stream=st.booleans())
def test_a_request_is_read_or_passes(endpoint: Endpoint, members: dict[str, Any], is_stream: bool) -> None:
    path = path_of(endpoint)
    if is_stream and endpoint.name == "generateContent":
        path = path.replace(":generate", ":streamGenerate").replace("generateC", "GenerateC")
    upstream = Upstream(name="u", url="http://u")
    asking = Asking(upstream=upstream, path=path, query="", headers={}, body=json.dumps(members).encode())
    found = read(endpoint, asking)
    assert isinstance(found, Question | NotAQuestion)
    if isinstance(found, Question) and not endpoint.takes_form:
        # what is stored holds the same question, whatever is starred in it, unless that was in the key
        stored = stored_request(endpoint.members, asking.body, members)
        if endpoint.members.starred(members) is members:
            assert stored == asking.body
        assert isinstance(v1_key(endpoint, asking), str | None)


@every_endpoint
@settings(max_examples=60)
@given(value=JSON)
def test_a_body_is_judged(endpoint: Endpoint, value: Any) -> None:
    assert isinstance(endpoint.judge(json.dumps(value).encode()), Complete | Broken)


@every_endpoint
@settings(max_examples=20)
@given(body=st.binary(max_size=40))
def test_bytes_are_judged(endpoint: Endpoint, body: bytes) -> None:
    assert isinstance(endpoint.judge(body), Complete | Broken)


@every_endpoint
@settings(max_examples=60)
@given(events=st.lists(st.tuples(st.none() | WORDS, JSON | st.just("[DONE]")), max_size=5), choices=st.integers(-1, 3))
def test_a_stream_is_judged(endpoint: Endpoint, events: list[tuple[str | None, Any]], choices: int) -> None:
    judge = endpoint.judge_stream(Criteria(choices=choices))
    for name, value in events:
        data = value if value == "[DONE]" else json.dumps(value)
        text = f"data: {data}\n\n" if name is None else f"event: {name}\ndata: {data}\n\n"
        assert isinstance(judge.take(sse.piece(text.encode())), bool)
    assert isinstance(judge.finish(), Complete | Broken)
