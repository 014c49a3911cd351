"""Gemini through the official client, and its JSON array, which the client never asks for."""

import asyncio
from typing import Any

import aiohttp
import pytest
from google import genai
from google.genai import errors, types
from pydantic import BaseModel

from kdproxy.testing.teacher import (
    TOOL_MARKER,
    EndTooEarly,
    InsufficientQuota,
    RateLimited,
    ScriptedTeacher,
    prompt_digest,
)

pytestmark = [
    pytest.mark.asyncio,
    # The client subclasses aiohttp's session.
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
]

MODEL = "gemini-2.5-flash"
BODY: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "Why?"}]}]}
TOOL = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="look_up",
            parameters=types.Schema(type=types.Type.OBJECT, properties={"term": types.Schema(type=types.Type.STRING)}),
        )
    ]
)


class Point(BaseModel):
    x: int
    name: str


async def test_content_in_both_clients(teacher: ScriptedTeacher, ask_gemini: genai.Client) -> None:
    answer = await ask_gemini.aio.models.generate_content(model=MODEL, contents="Why?")
    assert prompt_digest("Why?") in str(answer.text)
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    assert answer.usage_metadata is not None
    again = await asyncio.to_thread(ask_gemini.models.generate_content, model=MODEL, contents="Why?")
    assert again.text != answer.text
    assert teacher.calls[0].headers["X-Goog-Api-Key"] == "test"


async def test_stream_ends_with_its_reason(ask_gemini: genai.Client) -> None:
    stream = await ask_gemini.aio.models.generate_content_stream(model=MODEL, contents="Why?")
    reasons = [chunk.candidates[0].finish_reason async for chunk in stream if chunk.candidates]
    assert reasons == [None] * (len(reasons) - 1) + [types.FinishReason.STOP]


async def test_limit_schema_and_tools(ask_gemini: genai.Client) -> None:
    async def ask(contents: str = "Why?", **config: Any) -> types.GenerateContentResponse:
        options = types.GenerateContentConfig(
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True), **config
        )
        return await ask_gemini.aio.models.generate_content(model=MODEL, contents=contents, config=options)

    cut = await ask(max_output_tokens=2)
    assert cut.candidates is not None
    assert cut.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS
    parsed = await ask(response_mime_type="application/json", response_schema=Point)
    assert isinstance(parsed.parsed, Point)
    called = await ask(TOOL_MARKER, tools=[TOOL])
    assert [call.name for call in called.function_calls or []] == ["look_up"]


async def test_count_embed_and_models(ask_gemini: genai.Client) -> None:
    counted = await ask_gemini.aio.models.count_tokens(model=MODEL, contents="one two")
    assert counted.total_tokens == 5
    embedded = await ask_gemini.aio.models.embed_content(model="gemini-embedding-001", contents=["a", "b"])
    assert [len(each.values or []) for each in embedded.embeddings or []] == [32, 32]
    assert [model.name async for model in await ask_gemini.aio.models.list()]


async def test_without_alt_sse_the_stream_is_one_json_array(
    teacher: ScriptedTeacher, http: aiohttp.ClientSession
) -> None:
    url = f"{teacher.root_url}/v1beta/models/{MODEL}:streamGenerateContent"
    async with http.post(url, json=BODY) as whole:
        values = await whole.json()
        assert whole.headers["transfer-encoding"] == "chunked"
    assert "finishReason" in values[-1]["candidates"][0]
    teacher.script(EndTooEarly())
    async with http.post(url, json=BODY) as cut:
        assert b"finishReason" not in await cut.read()


async def test_quota_faults_name_the_quota(teacher: ScriptedTeacher, ask_gemini: genai.Client) -> None:
    teacher.script(RateLimited(retry_after=34), InsufficientQuota())
    with pytest.raises(errors.ClientError) as limited:
        await ask_gemini.aio.models.generate_content(model=MODEL, contents="Why?")
    details = limited.value.details["error"]["details"]
    assert "PerMinute" in details[0]["violations"][0]["quotaId"]
    assert details[1]["retryDelay"] == "34s"
    with pytest.raises(errors.ClientError) as spent:
        await ask_gemini.aio.models.generate_content(model=MODEL, contents="Why?")
    assert "PerDay" in spent.value.details["error"]["details"][0]["violations"][0]["quotaId"]
