"""What stored answers say, read from what the scripted teacher sends in each dialect and form."""

from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio

from kdproxy.core.models import Form, Prompt, Turn
from kdproxy.ops.reading import choices_of
from kdproxy.ops.training import rows
from kdproxy.testing.teacher import TOOL_MARKER, ScriptedTeacher

TOOL_QUESTION = f"Please {TOOL_MARKER}"
FUNCTION = {"name": "look_up", "parameters": {"type": "object", "properties": {"term": {"type": "string"}}}}

CHAT: dict[str, Any] = {
    "path": "/v1/chat/completions",
    "provider": "openai",
    "endpoint": "chat.completions",
    "request": {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Why?"}]},
    "stream": {"stream": True},
}
CHAT_TOOL = {
    **CHAT,
    "request": {
        "model": "gpt-4.1",
        "messages": [{"role": "user", "content": TOOL_QUESTION}],
        "tools": [{"type": "function", "function": FUNCTION}],
    },
}
RESPONSES: dict[str, Any] = {
    "path": "/v1/responses",
    "provider": "openai",
    "endpoint": "responses",
    "request": {"model": "gpt-4.1", "instructions": "Be kind.", "input": "Why?"},
    "stream": {"stream": True},
}
MESSAGES: dict[str, Any] = {
    "path": "/v1/messages",
    "provider": "anthropic",
    "endpoint": "messages",
    "request": {
        "model": "claude-sonnet-5",
        "max_tokens": 500,
        "system": [{"type": "text", "text": "Be kind."}],
        "messages": [{"role": "user", "content": "Why?"}],
    },
    "stream": {"stream": True},
}
MESSAGES_TOOL = {
    **MESSAGES,
    "request": {
        **MESSAGES["request"],
        "messages": [{"role": "user", "content": TOOL_QUESTION}],
        "tools": [{"name": "look_up", "input_schema": FUNCTION["parameters"]}],
    },
}
GEMINI: dict[str, Any] = {
    "path": "/v1beta/models/gemini-2.5-flash:generateContent",
    "stream_path": "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
    "provider": "gemini",
    "endpoint": "generateContent",
    "request": {"contents": [{"role": "user", "parts": [{"text": "Why?"}]}]},
    "stream": {},
}
COMPLETION: dict[str, Any] = {
    "path": "/v1/completions",
    "provider": "openai",
    "endpoint": "completions",
    "request": {"model": "gpt-3.5-turbo-instruct", "prompt": "Why?"},
    "stream": {"stream": True},
}


@pytest_asyncio.fixture
async def entries(entry: Any) -> Any:
    """Ask a teacher whose answers depend on the question alone, plainly and as a stream; return both as entries."""

    async def entries(case: dict[str, Any]) -> Any:
        async with ScriptedTeacher(deterministic=True) as teacher, aiohttp.ClientSession() as session:
            headers = {"Authorization": "Bearer test", "x-api-key": "test", "x-goog-api-key": "test"}
            if case["provider"] == "anthropic":
                headers["anthropic-version"] = "2023-06-01"
            found = []
            for form in (Form.JSON, Form.SSE):
                is_stream = form is Form.SSE
                path = case.get("stream_path", case["path"]) if is_stream else case["path"]
                body = {**case["request"], **(case["stream"] if is_stream else {})}
                async with session.post(teacher.root_url + path, json=body, headers=headers) as reply:
                    assert reply.status == 200
                    recorded = await reply.read()
                members = {name: case[name] for name in ("provider", "endpoint", "request")}
                found.append(entry("x", recorded, form=form, **members))
        return found

    return entries


@pytest.mark.asyncio
@pytest.mark.parametrize("case", [CHAT, COMPLETION, RESPONSES, MESSAGES, GEMINI], ids=lambda case: case["endpoint"])
async def test_both_forms_say_the_same(case: dict[str, Any], entries: Any) -> None:
    plain, streamed = [choices_of(found) for found in await entries(case)]
    assert plain[0].text
    assert (plain[0].text, plain[0].finish_reason) == (streamed[0].text, streamed[0].finish_reason)
    assert plain[0].finish_reason == "stop"


@pytest.mark.asyncio
@pytest.mark.parametrize("case", [CHAT_TOOL, MESSAGES_TOOL], ids=lambda case: case["endpoint"])
async def test_tool_calls_take_the_form_of_chat(case: dict[str, Any], entries: Any) -> None:
    for found in await entries(case):
        (row,) = rows(found)
        (call,) = row["messages"][-1]["tool_calls"]
        assert call["function"]["name"] == "look_up"
        assert "term" in orjson.loads(call["function"]["arguments"])
        assert row["finish_reason"] == "tool_calls"
        assert row["tools"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("case", "asked"),
    [
        (CHAT, [{"role": "user", "content": "Why?"}]),
        (COMPLETION, [{"role": "user", "content": "Why?"}]),
        (RESPONSES, [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]),
        (MESSAGES, [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]),
        (GEMINI, [{"role": "user", "content": "Why?"}]),
    ],
    ids=lambda value: value["endpoint"] if isinstance(value, dict) else "",
)
async def test_a_row_holds_the_conversation(case: dict[str, Any], asked: list[Any], entries: Any) -> None:
    for found in await entries(case):
        (row,) = rows(found)
        assert row["messages"][:-1] == asked
        assert row["messages"][-1]["role"] == "assistant"
        assert row["messages"][-1]["content"]


@pytest.mark.asyncio
async def test_each_choice_is_a_row(entries: Any) -> None:
    for found in await entries({**CHAT, "request": {**CHAT["request"], "n": 3}}):
        assert [row["choice"] for row in rows(found)] == [0, 1, 2]
        assert len({row["messages"][-1]["content"] for row in rows(found)}) == 3


def test_earlier_tool_use_takes_the_form_of_chat(entry: Any) -> None:
    request = {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Rome"}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "sunny"}]},
        ]
    }
    body = orjson.dumps({"content": [{"type": "text", "text": "Sunny."}], "stop_reason": "end_turn"})
    (row,) = rows(entry("x", body, provider="anthropic", endpoint="messages", request=request))
    assert row["messages"] == [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "sunny"},
        {"role": "assistant", "content": "Sunny."},
    ]


def test_a_recorded_prompt_is_a_row(entry: Any) -> None:
    prompt = Prompt(
        namespace="default",
        match_key="k",
        ordinal=1,
        model="m",
        turns=(Turn(role="user", text="q"),),
        response="a",
        prompt_hash="",
        created_at=1.0,
    )
    (row,) = rows(prompt)
    assert row["messages"] == [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def test_what_is_no_conversation_gives_no_rows(entry: Any) -> None:
    assert rows(entry("x", b'{"data":[]}', endpoint="embeddings")) == []
    assert rows(entry("x", b"\x00", form=Form.BINARY, endpoint="audio.speech")) == []


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("one", ["one"] * 4),
        (["one"], ["one"] * 4),
        (["one", "two"], ["one", "one", "two", "two"]),
        (["one", "two", "three", "four"], ["one", "two", "three", "four"]),
        ([1, 2], []),
        ([[1, 2], [3]], []),
    ],
)
def test_each_completion_is_a_row_with_its_own_prompt(entry: Any, prompt: Any, asked: list[str]) -> None:
    body = orjson.dumps({"choices": [{"index": index, "text": str(index)} for index in range(4)]})
    found = rows(entry("x", body, endpoint="completions", request={"prompt": prompt}))
    assert [row["messages"][0]["content"] for row in found] == asked
    assert [row["messages"][1]["content"] for row in found] == [str(index) for index in range(len(asked))]
