"""What `export --format chat` and `stats` say of answers that came through the proxy, against the official clients."""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import openai
import orjson
import pytest
from google import genai
from google.genai import types

from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import TOOL_MARKER, ScriptedTeacher
from tests.wire import WireServer, chunked, json_answer, sse, sse_head

pytestmark = [pytest.mark.asyncio, pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")]

Command = Callable[..., Awaitable[Any]]
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"term": {"type": "string"}}}
QUESTIONS = ["Why is the sky blue? — naïve", f"Please {TOOL_MARKER}."]


async def chat(proxy: RunningProxy, question: str) -> list[dict[str, Any]]:
    """Ask plainly and as a stream; return what the client makes of each, as a row's message."""
    tool: Any = {"type": "function", "function": {"name": "look_up", "parameters": SCHEMA}}
    ask: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": question}], "tools": [tool]}
    async with openai.AsyncOpenAI(base_url=proxy.base_url, api_key="any") as client:
        plain = await client.chat.completions.create(**ask)
        async with client.chat.completions.stream(**ask, seed=1) as stream:
            streamed = await stream.get_final_completion()
    return [_chat_message(answer.choices[0].message) for answer in (plain, streamed)]


def _chat_message(said: Any) -> dict[str, Any]:
    row = {"role": "assistant", "content": said.content}
    calls = [
        {"id": call.id, "type": "function", "function": call.function.model_dump(include={"name", "arguments"})}
        for call in said.tool_calls or []
    ]
    return {**row, "tool_calls": calls} if calls else row


async def responses(proxy: RunningProxy, question: str) -> list[dict[str, Any]]:
    tool: Any = {"type": "function", "name": "look_up", "parameters": SCHEMA, "strict": False}
    ask: dict[str, Any] = {"model": "m", "input": question, "tools": [tool]}
    async with openai.AsyncOpenAI(base_url=proxy.base_url, api_key="any") as client:
        plain = await client.responses.create(**ask)
        async with client.responses.stream(**ask, instructions="Be short.") as stream:
            streamed = await stream.get_final_response()
    found = []
    for answer in (plain, streamed):
        calls = [
            {"id": item.call_id, "type": "function", "function": {"name": item.name, "arguments": item.arguments}}
            for item in answer.output
            if item.type == "function_call"
        ]
        row = {"role": "assistant", "content": answer.output_text or None}
        found.append({**row, "tool_calls": calls} if calls else row)
    return found


async def messages(proxy: RunningProxy, question: str) -> list[dict[str, Any]]:
    tool: Any = {"name": "look_up", "input_schema": SCHEMA}
    ask: dict[str, Any] = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": question}]}
    async with anthropic.AsyncAnthropic(base_url=proxy.address, api_key="any") as client:
        plain = await client.messages.create(**ask, tools=[tool])
        async with client.messages.stream(**ask, tools=[tool], system="Be short.") as stream:
            streamed = await stream.get_final_message()
    found = []
    for answer in (plain, streamed):
        calls = [
            {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": _dumped(block.input)}}
            for block in answer.content
            if block.type == "tool_use"
        ]
        text = "".join(block.text for block in answer.content if block.type == "text")
        row = {"role": "assistant", "content": text or None}
        found.append({**row, "tool_calls": calls} if calls else row)
    return found


def _dumped(value: Any) -> str:
    return orjson.dumps(value).decode()


async def gemini(proxy: RunningProxy, question: str) -> list[dict[str, Any]]:
    client = genai.Client(api_key="any", http_options=types.HttpOptions(base_url=proxy.address))
    declared = types.FunctionDeclaration(name="look_up", parameters_json_schema=SCHEMA)
    tools: Any = [types.Tool(function_declarations=[declared])]
    plain = await client.aio.models.generate_content(
        model="m", contents=question, config=types.GenerateContentConfig(tools=tools, seed=1)
    )
    chunks = await client.aio.models.generate_content_stream(
        model="m", contents=question, config=types.GenerateContentConfig(tools=tools, seed=2)
    )
    streamed = [chunk async for chunk in chunks]
    found = []
    for answers in ([plain], streamed):
        parts = [part for answer in answers for part in answer.candidates[0].content.parts or []]
        calls = [
            {
                "id": part.function_call.id,
                "type": "function",
                "function": {"name": part.function_call.name, "arguments": _dumped(part.function_call.args)},
            }
            for part in parts
            if part.function_call
        ]
        row = {"role": "assistant", "content": "".join(part.text or "" for part in parts) or None}
        found.append({**row, "tool_calls": calls} if calls else row)
    return found


@pytest.mark.parametrize("ask", [chat, responses, messages, gemini], ids=lambda ask: ask.__name__)
async def test_rows_are_what_the_official_client_gives(
    ask: Callable[..., Awaitable[list[dict[str, Any]]]], teacher: ScriptedTeacher, kdproxy: Command
) -> None:
    async with run_proxy(teacher) as proxy:
        expected = [said for question in QUESTIONS for said in await ask(proxy, question)]
        ran = await kdproxy("export", "--format", "chat", "--data-dir", proxy.data_dir)
    assert ran.code == 0, ran.err
    rows = [orjson.loads(line) for line in ran.out.splitlines()]
    assert [{**row["messages"][-1], "content": row["messages"][-1]["content"] or None} for row in rows] == [
        {**said, "content": said["content"] or None} for said in expected
    ]
    assert all(row["tools"][0]["function"]["name"] == "look_up" for row in rows)


# -- upstreams that do not keep to the reference --------------------------------------------------------------------

QUESTION = {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}
PRICES = """
[[price]]
seller = "lab"
model = "m"
input = "2"
cached_input = "0.5"
output = "10"
"""


def chunk(delta: dict[str, Any], reason: str | None = None, **members: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason, **members.pop("choice", {})}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **members}


def streamed(*events: dict[str, Any]) -> list[bytes]:
    return [sse_head(), sse(*events, "data: [DONE]\n\n"), chunked(end=True)]


XAI = {
    "prompt_tokens": 100,
    "completion_tokens": 10,
    "total_tokens": 310,
    "completion_tokens_details": {"reasoning_tokens": 200},
}
MOONSHOT = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110, "cached_tokens": 60}
WHOLE = {"message": {"role": "assistant", "content": "Because."}, "index": 0, "finish_reason": "stop"}
BILLS: dict[str, tuple[list[bytes], list[int | None], str | None]] = {
    "reasoning beside completion": (
        [json_answer({"object": "chat.completion", "choices": [WHOLE], "usage": XAI})],
        [100, 210],
        "0.0023",  # 100 x 2 + 210 x 10
    ),
    "usage in the last choice of a stream": (
        streamed(chunk({"content": "Because."}), chunk({}, "stop", choice={"usage": MOONSHOT})),
        [100, 10],
        "0.00021",  # 40 x 2 + 60 x 0.5 + 10 x 10
    ),
    "a tier that the table does not price": (
        [json_answer({"object": "chat.completion", "choices": [WHOLE], "usage": XAI, "service_tier": "flex"})],
        [100, 210],
        None,
    ),
}


@pytest.mark.parametrize("case", BILLS.values(), ids=BILLS)
@pytest.mark.parametrize("tier", [None, "flex"])
async def test_the_bill_is_the_providers(
    case: tuple[list[bytes], list[int | None], str | None],
    tier: str | None,
    kdproxy: Command,
    send: Callable[..., Awaitable[Any]],
    tmp_path: Path,
) -> None:
    play, tokens, usd = case
    (tmp_path / "prices.toml").write_text(PRICES, encoding="utf-8")
    asked = {**QUESTION, "stream": len(play) > 1, **({} if tier is None else {"service_tier": tier})}
    async with (
        WireServer(play) as upstream,
        run_proxy([f"lab={upstream.url}"], prices=tmp_path / "prices.toml") as proxy,
    ):
        assert (await send(f"{proxy.base_url}/chat/completions", asked)).status == 200
        ran = await kdproxy("stats", "--json", "--data-dir", proxy.data_dir)
    (row,) = ran.json["by_model"]
    assert [row["input_tokens"], row["output_tokens"]] == tokens
    # What was asked for at another price, and not told as served, has no price.
    found = None if row["usd"] is None else Decimal(row["usd"])
    expected = Decimal(usd) if usd is not None and tier is None else None
    assert (found, row["unpriced_answers"]) == (expected, int(expected is None))


async def test_broken_streams_give_whole_rows(kdproxy: Command, send: Callable[..., Awaitable[Any]]) -> None:
    call: dict[str, Any] = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": '{"n":'}}
    rest = {**call, "function": {"name": "f", "arguments": "1}"}}
    second = {**call, "id": "b", "function": {"name": "f", "arguments": '{"n":2}'}}
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    calls = streamed(
        chunk({"content": [thinking]}),
        chunk({"content": [{"type": "text", "text": "I ask."}]}),
        *(chunk({"tool_calls": [each]}) for each in (call, rest, second)),
        chunk({}, "tool_calls"),
    )
    whole = json_answer({"object": "chat.completion", "choices": [{**WHOLE, "message": {"content": "Plain."}}]})
    async with WireServer(calls, [whole]) as upstream, run_proxy(upstream.url) as proxy:
        for stream in (True, False):
            await send(f"{proxy.base_url}/chat/completions", {**QUESTION, "stream": stream})
        ran = await kdproxy("export", "--format", "chat", "--data-dir", proxy.data_dir)
    (line,) = ran.out.splitlines()
    assert "1 left out: another recording of a sample (other form" in ran.err
    assert orjson.loads(line)["messages"][-1] == {
        "role": "assistant",
        "content": "I ask.",
        "reasoning_content": "Hm.",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"n":1}'}},
            {"id": "b", "type": "function", "function": {"name": "f", "arguments": '{"n":2}'}},
        ],
    }
