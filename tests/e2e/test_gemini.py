"""Google's official client: a second pass, and one after a restart, get equal objects and cost nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from google.genai import errors, types
from pydantic import BaseModel

from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import TOOL_MARKER, RateLimited, Respond, ScriptedTeacher

pytestmark = pytest.mark.asyncio

MODEL = "gemini-2.5-flash"
TOOL = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="look_up",
            parameters=types.Schema(type=types.Type.OBJECT, properties={"term": types.Schema(type=types.Type.STRING)}),
        )
    ]
)


async def test_an_error_has_googles_shape_also_behind_an_upstreams_name(teacher: ScriptedTeacher, send: Any) -> None:
    content = {"contents": [{"parts": [{"text": "Why?"}]}]}
    async with run_proxy([f"one={teacher.root_url}", f"two={teacher.root_url}"]) as proxy:
        url = f"{proxy.address}/upstreams/two/v1beta/models/{MODEL}:generateContent"
        for mode, status in (("replay", 504), ("no-such-mode", 400)):
            got = await send(url, content, headers={"Kdproxy-Mode": mode})
            assert (got.status, orjson.loads(got.body)["error"]["code"]) == (status, status)


class Point(BaseModel):
    x: int
    name: str


def plain(value: Any) -> Any:
    """Objects without the HTTP response in them, whose Date is not the same twice."""
    return value.model_dump(exclude={"sdk_http_response"})


async def content(ask: Any) -> Any:
    answer = await ask.gemini.aio.models.generate_content(
        model=MODEL, contents="Why?", config=types.GenerateContentConfig(temperature=0, system_instruction="Be short.")
    )
    assert answer.usage_metadata.total_token_count > 0
    return plain(answer)


async def content_sync(ask: Any) -> Any:
    return plain(await asyncio.to_thread(ask.gemini.models.generate_content, model=MODEL, contents="Why?"))


async def stream(ask: Any) -> Any:
    chunks = [
        chunk async for chunk in await ask.gemini.aio.models.generate_content_stream(model=MODEL, contents="Why?")
    ]
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP
    return [plain(chunk) for chunk in chunks]


async def stream_sync(ask: Any) -> Any:
    def read() -> Any:
        return [plain(chunk) for chunk in ask.gemini.models.generate_content_stream(model=MODEL, contents="How?")]

    return await asyncio.to_thread(read)


async def candidates(ask: Any) -> Any:
    config = types.GenerateContentConfig(candidate_count=2)
    answer = await ask.gemini.aio.models.generate_content(model=MODEL, contents="Why?", config=config)
    assert len(answer.candidates) == 2
    return plain(answer)


async def tools(ask: Any) -> Any:
    config = types.GenerateContentConfig(
        tools=[TOOL], automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True)
    )
    answer = await ask.gemini.aio.models.generate_content(model=MODEL, contents=f"Please {TOOL_MARKER}.", config=config)
    assert answer.function_calls[0].name == "look_up"
    return plain(answer)


async def parsed(ask: Any) -> Any:
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=Point)
    answer = await ask.gemini.aio.models.generate_content(model=MODEL, contents="Where?", config=config)
    assert isinstance(answer.parsed, Point)
    return plain(answer)


ASKS: tuple[Callable[[Any], Awaitable[Any]], ...] = (
    *(content, content_sync, stream, stream_sync, candidates, tools, parsed),
)


async def test_every_call_is_bought_once(teacher: ScriptedTeacher, tmp_path: Path, assert_bought_once: Any) -> None:
    await assert_bought_once(teacher, teacher.root_url, tmp_path, ASKS)
    assert teacher.count() == len(ASKS)


async def test_a_rate_limit_is_waited_out(teacher: ScriptedTeacher, proxy: RunningProxy, clients_of: Any) -> None:
    teacher.script(RateLimited(retry_after=0.02))
    async with clients_of(proxy) as ask:
        await content(ask)
    assert teacher.count() == 2


async def test_a_refusal_is_the_providers(teacher: ScriptedTeacher, proxy: RunningProxy, clients_of: Any) -> None:
    teacher.script(Respond(400, {}, b'{"error":{"code":400,"message":"No such field.","status":"INVALID_ARGUMENT"}}'))
    async with clients_of(proxy) as ask:
        with pytest.raises(errors.ClientError, match="No such field"):
            await content(ask)


async def test_a_stream_without_sse_is_an_array_of_its_own(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """Without alt=sse it is one JSON array, which must not answer for the plain call, nor the reverse."""
    body = {"contents": [{"role": "user", "parts": [{"text": "Why?"}]}]}
    base = f"{proxy.address}/v1beta/models/{MODEL}"
    array = await send(f"{base}:streamGenerateContent", body)
    assert array.body.lstrip().startswith(b"[")
    whole = await send(f"{base}:generateContent", body)
    assert whole.body.lstrip().startswith(b"{")
    again = await send(f"{base}:streamGenerateContent", body)
    assert (again.body, teacher.count()) == (array.body, 2)
    events = await send(f"{base}:streamGenerateContent?alt=sse&key=the-key", body)
    assert events.body.startswith(b"data: ")
    once_more = await send(f"{base}:streamGenerateContent?key=another-key&alt=sse", body)
    assert (once_more.body, teacher.count()) == (events.body, 3)
