"""JSON in place of a stream: kept by its own rules, given again to who asks for a stream, and never the other way."""

from typing import Any

import pytest

from kdproxy.testing.proxy import run_proxy
from tests.wire import Play, Request, WireServer, chat, chat_body, chunked, json_answer, sse, sse_head
from tests.wire.asks import ASK, CHAT, STREAM, WITH_USAGE

pytestmark = pytest.mark.asyncio

CLAUDE = {**ASK, "max_tokens": 9, "stream": True}
MESSAGE = {"type": "message", "content": [{"type": "text", "text": "a"}], "stop_reason": "end_turn"}
CANDIDATE = {"candidates": [{"index": 0, "content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}]}
GEMINI = "/v1beta/models/g:streamGenerateContent?alt=sse"
RESPONSE = {"status": "completed", "output": [{"content": [{"type": "output_text", "text": "a"}]}]}
KINDS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "openai": (CHAT, STREAM, chat_body()),
    "anthropic": ("/v1/messages", CLAUDE, MESSAGE),
    "gemini": (GEMINI, {"contents": [{"parts": [{"text": "x"}]}]}, CANDIDATE),
    "gemini's array": (GEMINI, {"contents": [{"parts": [{"text": "x"}]}]}, [CANDIDATE]),
    "responses": ("/v1/responses", {"model": "m", "input": "x", "stream": True}, RESPONSE),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_it_is_kept_and_given_again_as_it_came(send: Any, kind: str) -> None:
    path, body, members = KINDS[kind]
    async with WireServer([json_answer(members)]) as upstream, run_proxy(upstream.url) as proxy:
        first = await send(proxy.address + path, body)
        second = await send(proxy.address + path, body)
        assert len(upstream.requests) == 1
    assert "; stored" in first.cache
    assert "; hit" in second.cache
    assert first.body == second.body
    assert first.headers["Content-Type"] == second.headers["Content-Type"] == "application/json"


async def test_it_answers_who_asks_for_json(send: Any) -> None:
    async with WireServer([chat()]) as upstream, run_proxy(upstream.url) as proxy:
        first = await send(proxy.address + CHAT, STREAM)
        assert (await send(proxy.address + CHAT, ASK)).body == first.body
        assert len(upstream.requests) == 1


async def test_json_that_was_asked_for_as_json_is_no_stream(send: Any) -> None:
    token = {"choices": [{"index": 0, "delta": {"content": "live"}, "finish_reason": "stop"}]}

    def play(request: Request) -> Play:
        is_stream = b'"stream"' in request.body
        return [sse_head(), sse(token, "data: [DONE]\n\n"), chunked(end=True)] if is_stream else [chat("whole")]

    async with WireServer(play) as upstream, run_proxy(upstream.url) as proxy:
        await send(proxy.address + CHAT, ASK)
        for _ in range(2):
            assert b"live" in (await send(proxy.address + CHAT, STREAM)).body
        assert b"whole" in (await send(proxy.address + CHAT, ASK)).body
        assert len(upstream.requests) == 2


async def test_a_server_that_ignores_stream_is_asked_once_for_each_form(send: Any) -> None:
    """Whether the usage that was asked for is in it is the server's word: one call for who asks, then hits."""
    plays = iter([chat("a"), chat("b"), chat("c")])
    async with WireServer(lambda _: [next(plays)]) as upstream, run_proxy(upstream.url) as proxy:
        for _ in range(3):
            got = [(await send(proxy.address + CHAT, body)).body for body in (ASK, STREAM, WITH_USAGE)]
            assert [text in body for text, body in zip((b"-a", b"-b", b"-c"), got, strict=True)] == [True] * 3
        assert len(upstream.requests) == 3
