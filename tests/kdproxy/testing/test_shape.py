"""Answers satisfy the providers' published types in full: the clients themselves do not check."""

from typing import Any

import aiohttp
import pytest
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from google.genai.types import GenerateContentResponse
from openai.types import Completion, CreateEmbeddingResponse, ImagesResponse, ModerationCreateResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

TURN = {"role": "user", "content": "Why?"}
CHAT: dict[str, Any] = {"model": "m", "messages": [TURN], "logprobs": True, "top_logprobs": 2}
TOOLS: dict[str, Any] = {
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "tool_choice": "required",
}
MESSAGE: dict[str, Any] = {"model": "m", "max_tokens": 50, "messages": [TURN], "thinking": {"type": "enabled"}}
CONTENT: dict[str, Any] = {"contents": [{"parts": [{"text": "Why?"}]}]}
OPTIONS = {"stream": True, "stream_options": {"include_usage": True}}

WHOLE = [
    ("/v1/chat/completions", CHAT, ChatCompletion),
    ("/v1/chat/completions", CHAT | TOOLS, ChatCompletion),
    ("/v1/completions", {"model": "m", "prompt": "Why?", "logprobs": 2}, Completion),
    ("/v1/embeddings", {"model": "m", "input": "Why?"}, CreateEmbeddingResponse),
    ("/v1/responses", {"model": "m", "input": "Why?"}, Response),
    ("/v1/moderations", {"input": "Why?"}, ModerationCreateResponse),
    ("/v1/images/generations", {"prompt": "A cat"}, ImagesResponse),
    ("/v1/messages", MESSAGE, Message),
    ("/v1/messages/count_tokens", MESSAGE, MessageTokensCount),
    ("/v1beta/models/m:generateContent", CONTENT, GenerateContentResponse),
]
# Not /v1/completions: its type forbids the null finish_reason that every chunk but the last has.
STREAMED = [
    ("/v1/chat/completions", CHAT | OPTIONS, ChatCompletionChunk),
    ("/v1/chat/completions", CHAT | TOOLS | OPTIONS, ChatCompletionChunk),
    ("/v1/responses", {"model": "m", "input": "Why?", "stream": True}, ResponseStreamEvent),
    ("/v1/messages", MESSAGE | {"stream": True}, RawMessageStreamEvent),
    ("/v1beta/models/m:streamGenerateContent?alt=sse", CONTENT, GenerateContentResponse),
]


@pytest.mark.parametrize(("path", "body", "kind"), WHOLE)
async def test_json_answer_satisfies_its_type(
    teacher: ScriptedTeacher, http: aiohttp.ClientSession, path: str, body: dict[str, Any], kind: Any
) -> None:
    async with http.post(
        teacher.root_url + path, json=body, headers={"anthropic-version": "2023-06-01"} if "messages" in path else {}
    ) as answer:
        assert answer.status == 200
        TypeAdapter(kind).validate_json(await answer.read())


@pytest.mark.parametrize(("path", "body", "kind"), STREAMED)
async def test_each_event_satisfies_its_type(
    teacher: ScriptedTeacher, http: aiohttp.ClientSession, path: str, body: dict[str, Any], kind: Any
) -> None:
    headers = {"anthropic-version": "2023-06-01"} if "messages" in path else {}
    async with http.post(teacher.root_url + path, json=body, headers=headers) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = (await answer.read()).splitlines()
    data = [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: {")]
    assert len(data) > 3
    for value in data:
        # Anthropic's type leaves pings out.
        if value != b'{"type":"ping"}':
            TypeAdapter(kind).validate_json(value)
