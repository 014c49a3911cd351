"""Stored answers are what some server sent: whatever is in one, the jobs that read all of them go on."""

import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core import record
from kdproxy.core.models import Answer, Entry, Form
from kdproxy.ops.forget.choose import Wish, choose, texts_asked
from kdproxy.ops.reading import choices_of
from kdproxy.ops.training import rows
from tests.kdproxy.sample import ENTRY

READ = [
    ("openai", "chat.completions"),
    ("openai", "completions"),
    ("openai", "responses"),
    ("anthropic", "messages"),
    ("gemini", "generateContent"),
]
NAMES = st.sampled_from(
    [
        *("choices", "index", "finish_reason", "message", "delta", "content", "text", "tool_calls", "function", "name"),
        *("arguments", "type", "custom", "input", "id", "content_block", "partial_json", "thinking", "stop_reason"),
        *("candidates", "parts", "functionCall", "args", "finishReason", "output", "status", "response", "summary"),
        *("messages", "prompt", "contents", "role", "system", "instructions", "n", "incomplete_details", "reason"),
    ]
)
WORDS = st.sampled_from(
    [
        *("stop", "custom", "function", "text", "tool_use", "thinking", "message", "reasoning", "function_call"),
        *("message_delta", "content_block_start", "content_block_delta", "completed", "user", "model", "1"),
    ]
)
LEAVES = st.none() | st.booleans() | st.integers(-2, 2) | st.just(1.5) | WORDS
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=14
)
OBJECT = st.dictionaries(NAMES, JSON, max_size=5)


def stored(read: tuple[str, str], body: bytes, request: Any, form: Form = Form.JSON) -> Entry:
    provider, endpoint = read
    return ENTRY._replace(
        upstream=provider,
        provider=provider,
        endpoint=endpoint,
        request=orjson.dumps(request),
        answer=Answer(status=200, headers=(), body=body, form=form),
    )


def events(*members: Any) -> bytes:
    return b"".join(b"data: " + orjson.dumps(each) + b"\n\n" for each in members)


@pytest.mark.parametrize("read", READ, ids=lambda read: read[1])
@given(answer=OBJECT, stream=st.lists(OBJECT, max_size=4), request=OBJECT)
def test_no_answer_stops_a_job(
    read: tuple[str, str], answer: dict[str, Any], stream: list[dict[str, Any]], request: dict[str, Any]
) -> None:
    for entry in (
        stored(read, orjson.dumps(answer), request),
        stored(read, events(*stream), request, Form.SSE),
    ):
        for row in rows(entry):
            orjson.dumps(row)
        for choice in choices_of(entry):
            assert choice.finish_reason is None or isinstance(choice.finish_reason, str)
        assert all(isinstance(text, str) for text in texts_asked(entry))


def _pieces(*pieces: dict[str, Any]) -> bytes:
    return events(*({"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]} for piece in pieces))


def test_the_pieces_of_a_custom_tools_call_are_put_together() -> None:
    body = _pieces(
        {"index": 0, "id": "call_1", "type": "custom", "custom": {"name": "sql", "input": ""}},
        {"index": 0, "custom": {"input": "SELECT "}},
        {"index": 1, "id": "call_2", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "custom": {"input": "1"}},
        {"index": 1, "function": {"arguments": "{}"}},
    )
    (choice,) = choices_of(stored(READ[0], body, {"messages": []}, Form.SSE))
    assert choice.tool_calls == [
        {"id": "call_1", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}},
        {"id": "call_2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    ]


def test_arguments_that_are_an_object_are_reported_as_text() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}
    body = orjson.dumps({"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]})
    (choice,) = choices_of(stored(READ[0], body, {"messages": []}))
    assert choice.tool_calls[0]["function"] == {"name": "f", "arguments": '{"a":1}'}


def test_a_custom_call_is_found_by_its_text() -> None:
    body = _pieces(
        {"index": 0, "id": "c", "type": "custom", "custom": {"name": "sql", "input": "SEL"}},
        {"index": 0, "custom": {"input": "ECT"}},
    )
    line = record.encode(stored(READ[0], body, {"messages": []}, Form.SSE))
    (chosen,) = choose([line], Wish(match=re.escape("SELECT")))
    assert chosen.key == ENTRY.address.key
