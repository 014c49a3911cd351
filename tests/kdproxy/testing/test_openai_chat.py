"""Chat through the official client: what it parses is what the provider documents."""

import asyncio
import math
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from kdproxy.testing.teacher import TOOL_MARKER, ScriptedTeacher, prompt_digest

pytestmark = pytest.mark.asyncio

ASK: dict[str, Any] = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Verdict(BaseModel):
    label: str
    score: float
    reasons: list[str]


async def test_answers_are_unique_and_name_their_prompt(
    teacher: ScriptedTeacher, ask_openai: openai.AsyncOpenAI
) -> None:
    first = await ask_openai.chat.completions.create(**ASK)
    second = await ask_openai.chat.completions.create(**ASK)
    assert first.id != second.id
    assert first.choices[0].message.content != second.choices[0].message.content
    for answer in (first, second):
        assert prompt_digest("Why is the sky blue?") in str(answer.choices[0].message.content)
        assert answer.choices[0].finish_reason == "stop"
        assert answer.system_fingerprint
        assert answer.usage is not None
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert teacher.count("/chat/completions") == 2
    assert teacher.calls[0].json == ASK
    assert teacher.calls[0].headers["authorization"] == "Bearer test"


async def test_sync_client_gets_the_same_shapes(teacher: ScriptedTeacher, ask_openai_sync: openai.OpenAI) -> None:
    def ask() -> tuple[str, str]:
        whole = ask_openai_sync.chat.completions.create(**ASK)
        chunks = ask_openai_sync.chat.completions.create(**ASK, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        return str(whole.choices[0].message.content), text

    whole, streamed = await asyncio.to_thread(ask)
    assert whole.startswith("Answer 1 to ")
    assert streamed.startswith("Answer 2 to ")


async def test_stream_has_role_first_then_text_reason_usage(ask_openai: openai.AsyncOpenAI) -> None:
    options: Any = {"include_usage": True}
    stream = await ask_openai.chat.completions.create(**ASK, stream=True, stream_options=options)
    chunks = [chunk async for chunk in stream]
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None


async def test_stream_without_usage_never_mentions_it(ask_openai: openai.AsyncOpenAI) -> None:
    stream = await ask_openai.chat.completions.create(**ASK, stream=True)
    assert not [chunk async for chunk in stream if "usage" in chunk.model_fields_set]


async def test_stream_ends_with_done(ask_openai: openai.AsyncOpenAI) -> None:
    async with ask_openai.chat.completions.with_streaming_response.create(**ASK, stream=True) as response:
        body = await response.read()
    assert body.endswith(b"data: [DONE]\n\n")
    assert response.headers["content-type"].startswith("text/event-stream")


async def test_n_and_logprobs(ask_openai: openai.AsyncOpenAI) -> None:
    answer = await ask_openai.chat.completions.create(**ASK, n=3, logprobs=True, top_logprobs=5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3
    for choice in answer.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        assert "".join(entry.token for entry in choice.logprobs.content) == choice.message.content
        assert all(len(entry.top_logprobs) == 5 for entry in choice.logprobs.content)
        assert all(bytes(entry.bytes or ()).decode() == entry.token for entry in choice.logprobs.content)
        for entry in choice.logprobs.content:  # a student is trained on what they leave over
            assert 0.5 < sum(math.exp(other.logprob) for other in entry.top_logprobs) < 1


@pytest.mark.parametrize("limit", [{"max_tokens": 3}, {"max_completion_tokens": 3}])
async def test_a_limit_cuts_the_answer(ask_openai: openai.AsyncOpenAI, limit: dict[str, Any]) -> None:
    answer = await ask_openai.chat.completions.create(**ASK, **limit)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


async def test_forced_and_marked_tools_are_called(ask_openai: openai.AsyncOpenAI) -> None:
    marked = [{"role": "user", "content": f"{TOOL_MARKER}, please"}]
    forced = {"type": "function", "function": {"name": "get_weather"}}
    for body in (
        ASK | {"tool_choice": "required"},
        ASK | {"tool_choice": forced},
        ASK | {"messages": marked},
    ):
        answer = await ask_openai.chat.completions.create(**body, tools=[WEATHER])
        assert answer.choices[0].finish_reason == "tool_calls"
        [call] = answer.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert call.function.name == "get_weather"
        assert '"city":' in call.function.arguments


async def test_unasked_tools_and_tool_results_get_text(ask_openai: openai.AsyncOpenAI) -> None:
    answered = [
        {"role": "user", "content": TOOL_MARKER},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    for body in (ASK, ASK | {"messages": answered}):
        answer = await ask_openai.chat.completions.create(**body, tools=[WEATHER])
        assert answer.choices[0].message.tool_calls is None
        assert answer.choices[0].message.content


async def test_streamed_tool_call_adds_up(ask_openai: openai.AsyncOpenAI) -> None:
    async with ask_openai.chat.completions.stream(**ASK, tools=[WEATHER], tool_choice="required") as stream:
        final = await stream.get_final_completion()
    [call] = final.choices[0].message.tool_calls or []
    assert call.function.name == "get_weather"
    assert call.function.arguments.startswith('{"city":"Answer 1 to')


async def test_parsed_output_satisfies_its_model(ask_openai: openai.AsyncOpenAI) -> None:
    answer = await ask_openai.chat.completions.parse(**ASK, response_format=Verdict)
    parsed = answer.choices[0].message.parsed
    assert parsed is not None
    assert parsed.label.startswith("Answer 1 to")
    assert parsed.reasons == [parsed.label]


async def test_a_reasoning_model_shows_its_thoughts_first(ask_openai: openai.AsyncOpenAI) -> None:
    body = ASK | {"model": "deepseek-reasoner"}
    answer = await ask_openai.chat.completions.create(**body)
    stream = await ask_openai.chat.completions.create(**body, stream=True)
    deltas = [chunk.choices[0].delta.model_dump(exclude_unset=True) async for chunk in stream]
    thoughts = "".join(delta.get("reasoning_content", "") for delta in deltas)
    assert thoughts == answer.choices[0].message.model_dump()["reasoning_content"]


async def test_bad_questions_are_refused_as_the_provider_does(ask_openai: openai.AsyncOpenAI) -> None:
    wrong: Any
    for wrong in ([], "none"):
        with pytest.raises(openai.BadRequestError, match="messages"):
            await ask_openai.chat.completions.create(model="m", messages=wrong)
    wrong = "three"
    with pytest.raises(openai.BadRequestError, match="Invalid type"):
        await ask_openai.chat.completions.create(**ASK, n=wrong)


async def test_azure_path_names_the_model(teacher: ScriptedTeacher) -> None:
    client = openai.AsyncAzureOpenAI(azure_endpoint=teacher.root_url, api_version="2025-01-01", api_key="test")
    async with client:
        answer = await client.chat.completions.create(**ASK)
    assert answer.model == "gpt-4.1"
    assert teacher.calls[0].path == "/openai/deployments/gpt-4.1/chat/completions"
    assert teacher.calls[0].headers["api-key"] == "test"
