"""Anthropic's official client: a second pass, and one after a restart, get equal objects and cost nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anthropic
import pytest

from kdproxy.testing.proxy import RunningProxy
from kdproxy.testing.teacher import TOOL_MARKER, Overloaded, RateLimited, ScriptedTeacher

pytestmark = pytest.mark.asyncio

ASK: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Why is the sky blue? — naïve"}],
}
TOOL: Any = {"name": "look_up", "input_schema": {"type": "object", "properties": {"term": {"type": "string"}}}}


async def message(ask: Any) -> Any:
    answer = await ask.anthropic.messages.create(**ASK, system="Be short.", extra_body={"temperature": 0})
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens > 0
    return answer


async def message_sync(ask: Any) -> Any:
    return await asyncio.to_thread(ask.anthropic_sync.messages.create, **ASK)


async def stream(ask: Any) -> Any:
    events = [event async for event in await ask.anthropic.messages.create(**ASK, stream=True)]
    assert events[-1].type == "message_stop"
    return events


async def stream_helper(ask: Any) -> Any:
    async with ask.anthropic.messages.stream(**ASK, stop_sequences=["x"]) as events:
        return [event.type async for event in events], await events.get_final_message()


async def stream_sync(ask: Any) -> Any:
    def read() -> Any:
        with ask.anthropic_sync.messages.stream(**ASK, extra_body={"top_k": 3}) as events:
            return list(events.text_stream)

    return await asyncio.to_thread(read)


async def tools(ask: Any) -> Any:
    messages = [{"role": "user", "content": f"Please {TOOL_MARKER}."}]
    answer = await ask.anthropic.messages.create(**{**ASK, "messages": messages}, tools=[TOOL])
    assert answer.stop_reason == "tool_use"
    return answer


async def tools_stream(ask: Any) -> Any:
    messages = [{"role": "user", "content": f"Please {TOOL_MARKER}."}]
    return [
        event
        async for event in await ask.anthropic.messages.create(
            **{**ASK, "messages": messages}, tools=[TOOL], stream=True
        )
    ]


async def count(ask: Any) -> Any:
    answer = await ask.anthropic.messages.count_tokens(model=ASK["model"], messages=ASK["messages"])
    assert answer.input_tokens > 0
    return answer


async def beta(ask: Any) -> Any:
    return await ask.anthropic.beta.messages.create(**ASK, betas=["context-1m-2025-08-07"])


ASKS: tuple[Callable[[Any], Awaitable[Any]], ...] = (
    *(message, message_sync, stream, stream_helper, stream_sync, tools, tools_stream, count, beta),
)


async def test_every_call_is_bought_once(teacher: ScriptedTeacher, tmp_path: Path, assert_bought_once: Any) -> None:
    await assert_bought_once(teacher, teacher.root_url, tmp_path, ASKS)
    # A stream is another form of the plain question: one sample, two recordings.
    assert teacher.count() == len(ASKS)


async def test_another_version_or_beta_is_another_question(
    teacher: ScriptedTeacher, proxy: RunningProxy, clients_of: Any
) -> None:
    async with clients_of(proxy) as ask:
        await ask.anthropic.messages.create(**ASK)
        await ask.anthropic.messages.create(**ASK, extra_headers={"anthropic-version": "2099-01-01"})
        await ask.anthropic.messages.create(**ASK, extra_headers={"anthropic-beta": "a,b"})
        assert teacher.count() == 3
        await ask.anthropic.messages.create(**ASK, extra_headers={"anthropic-beta": "b, a"})
        assert teacher.count() == 3


async def test_message_batches_and_models_pass(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    headers = {"anthropic-version": "2023-06-01"}
    for method, path in (("POST", "/v1/messages/batches"), ("GET", "/v1/models")):
        body = {"requests": []} if method == "POST" else None
        for _ in range(2):
            await send(proxy.address + path, body, method=method, headers=headers)
        assert teacher.count(path) == 2


async def test_overload_is_waited_out(teacher: ScriptedTeacher, proxy: RunningProxy, clients_of: Any) -> None:
    teacher.script(Overloaded(), RateLimited(retry_after_ms=20))
    async with clients_of(proxy) as ask:
        await message(ask)
    assert teacher.count() == 3


async def test_a_refusal_is_the_providers(teacher: ScriptedTeacher, proxy: RunningProxy, clients_of: Any) -> None:
    async with clients_of(proxy) as ask:
        with pytest.raises(anthropic.BadRequestError):
            await ask.anthropic.messages.create(**{**ASK, "messages": []})
