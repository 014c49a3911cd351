"""Anthropic's Messages API through the official client."""

import asyncio
from collections.abc import AsyncIterable
from typing import Any

import aiohttp
import anthropic
import pytest
from pydantic import BaseModel

from kdproxy.testing.teacher import (
    TOOL_MARKER,
    ErrorEvent,
    InsufficientQuota,
    Overloaded,
    RateLimited,
    ScriptedTeacher,
    prompt_digest,
)

pytestmark = pytest.mark.asyncio

ASK: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Why?"}],
}
TOOL: Any = {"name": "look_up", "input_schema": {"type": "object", "properties": {"term": {"type": "string"}}}}


class Point(BaseModel):
    x: int


async def test_message_and_its_headers(ask_anthropic: anthropic.AsyncAnthropic) -> None:
    raw = await ask_anthropic.messages.with_raw_response.create(**ASK)
    message = await raw.parse()
    assert message.content[0].type == "text"
    assert prompt_digest("Why?") in message.content[0].text
    assert message.stop_reason == "end_turn"
    assert raw.headers["request-id"].startswith("req_")
    assert raw.headers["anthropic-ratelimit-input-tokens-reset"].endswith("Z")


async def test_stream_adds_up_and_has_the_documented_order(ask_anthropic: anthropic.AsyncAnthropic) -> None:
    events = [event async for event in await ask_anthropic.messages.create(**ASK, stream=True)]
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    async with ask_anthropic.messages.stream(**ASK) as stream:
        message = await stream.get_final_message()
    assert message.content[0].type == "text"
    assert message.content[0].text.startswith("Answer 2 to")
    assert message.usage.output_tokens > 1


async def test_stream_names_each_event_and_pings(ask_anthropic: anthropic.AsyncAnthropic) -> None:
    async with ask_anthropic.messages.with_streaming_response.create(**ASK, stream=True) as response:
        body = await response.read()
    assert body.startswith(b'event: message_start\ndata: {"type":"message_start"')
    assert b'event: ping\ndata: {"type":"ping"}\n\n' in body


async def test_sync_client(ask_anthropic_sync: anthropic.Anthropic) -> None:
    message = await asyncio.to_thread(lambda: ask_anthropic_sync.messages.create(**ASK))
    assert message.role == "assistant"


async def test_tools_in_both_forms(ask_anthropic: anthropic.AsyncAnthropic) -> None:
    marked = ASK | {"messages": [{"role": "user", "content": TOOL_MARKER}]}
    for body in (marked, ASK | {"tool_choice": {"type": "tool", "name": "look_up"}}):
        message = await ask_anthropic.messages.create(**body, tools=[TOOL])
        assert message.stop_reason == "tool_use"
        async with ask_anthropic.messages.stream(**body, tools=[TOOL]) as stream:
            streamed = await stream.get_final_message()
        for block in (message.content[0], streamed.content[0]):
            assert block.type == "tool_use"
            assert set(block.input) == {"term"}


async def test_thinking_comes_with_its_signature(ask_anthropic: anthropic.AsyncAnthropic) -> None:
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    async with ask_anthropic.messages.stream(**ASK, thinking=thinking) as stream:
        message = await stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].type == "thinking"
    assert message.content[0].signature


async def test_parsed_output(ask_anthropic: anthropic.AsyncAnthropic) -> None:
    message = await ask_anthropic.messages.parse(**ASK, output_format=Point)
    assert message.parsed_output == Point(x=7)


async def test_limit_count_tokens_and_models(ask_anthropic: anthropic.AsyncAnthropic) -> None:
    message = await ask_anthropic.messages.create(**ASK | {"max_tokens": 2})
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 2)
    counted = await ask_anthropic.messages.count_tokens(model=ASK["model"], messages=ASK["messages"])
    assert counted.input_tokens == message.usage.input_tokens
    assert [model.id async for model in ask_anthropic.models.list()]


async def test_faults_have_anthropics_shape(teacher: ScriptedTeacher, ask_anthropic: anthropic.AsyncAnthropic) -> None:
    teacher.script(RateLimited(retry_after=3), Overloaded(), InsufficientQuota())
    with pytest.raises(anthropic.RateLimitError) as limited:
        await ask_anthropic.messages.create(**ASK)
    assert limited.value.response.headers["retry-after"] == "3"
    assert limited.value.body == {
        "type": "error",
        "error": {"type": "rate_limit_error", "message": "Rate limit reached"},
        "request_id": limited.value.response.headers["request-id"],
    }
    with pytest.raises(anthropic.APIStatusError) as overloaded:
        await ask_anthropic.messages.create(**ASK)
    assert overloaded.value.status_code == 529
    with pytest.raises(anthropic.BadRequestError, match="credit balance"):
        await ask_anthropic.messages.create(**ASK)


async def test_error_event_breaks_a_stream(teacher: ScriptedTeacher, ask_anthropic: anthropic.AsyncAnthropic) -> None:
    teacher.script(ErrorEvent(after_events=4))
    stream = await ask_anthropic.messages.create(**ASK, stream=True)
    assert (await anext(stream)).type == "message_start"
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        await _read_on(stream)


async def _read_on(stream: AsyncIterable[Any]) -> None:
    async for _ in stream:
        pass


async def test_version_header_is_needed(teacher: ScriptedTeacher, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{teacher.base_url}/messages", json=ASK) as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"
