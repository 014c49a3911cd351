"""Situations that people have reported of servers, gateways and clients, in our words: over raw sockets."""

from typing import Any

import pytest

from kdproxy.testing.proxy import run_proxy
from tests.wire import Play, WireServer, answer, chat_body, chunked, json_answer, sse, sse_head
from tests.wire.asks import ASK, CHAT, STREAM
from tests.wire.posts import posts, to_posts

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("fast_backoff")]

CLAUDE = {**ASK, "max_tokens": 9, "stream": True}
GEMINI = "/v1beta/models/g:generateContent"
PROMPT = {"contents": [{"parts": [{"text": "Why?"}]}]}
VECTOR = {"model": "m", "input": "x"}
LAST = chunked(end=True)
DONE = b"data: [DONE]\n\n"
TEXT = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
START = {"type": "message_start", "message": {"type": "message", "usage": {"input_tokens": 3, "output_tokens": 0}}}
DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
OVERLOADED = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'


def stream(*events: Any) -> Play:
    return [sse_head(), sse(*events), LAST]


NOT_WHOLE: dict[str, tuple[str, Any, Play]] = {
    "an error behind the finish reason": (CHAT, STREAM, stream(TEXT, STOP, {"error": {"message": "x"}}, DONE)),
    "unsloth-10811: overloaded in the middle": ("/v1/messages", CLAUDE, stream(START, DELTA, OVERLOADED)),
    "overloaded behind the stop reason": ("/v1/messages", CLAUDE, stream(START, DELTA, END, OVERLOADED)),
    "vllm-57082: the engine aborts": (
        CHAT,
        STREAM,
        stream(TEXT, {"choices": [{**STOP["choices"][0], "finish_reason": "abort"}]}, DONE),
    ),
    "gonka-1723: an aggregated cut": (CHAT, ASK, [json_answer(chat_body(finish_reason=None))]),
    "a chunk in place of an answer": (CHAT, ASK, [json_answer({"object": "chat.completion.chunk", **TEXT})]),
    "two answers in one body": (CHAT, ASK, [answer(b'{"choices":[]}{"choices":[]}')]),
    "portkey: a guardrail's status 246": (CHAT, ASK, [json_answer(chat_body(), status="246 Guardrail")]),
    "xAI: deferred, 202": (CHAT, ASK, [json_answer({"request_id": "1"}, status="202 Accepted")]),
    "FastAPI's detail under 200": (CHAT, ASK, [json_answer({"detail": "Internal Server Error"})]),
    "a Lambda's error under 200": (CHAT, ASK, [json_answer({"errorMessage": "Task timed out", "statusCode": 500})]),
    "plain words under 200": (CHAT, ASK, [answer(b"upstream connect error or disconnect", kind="text/plain")]),
    "Gemini: no candidate and no block": (GEMINI, PROMPT, [json_answer({"candidates": [], "usageMetadata": {}})]),
    "ollama: a vector of zeros": (
        "/v1/embeddings",
        VECTOR,
        [json_answer({"data": [{"index": 0, "embedding": [0.0, 0, 0]}]})],
    ),
    "meilisearch-4456: null for a blank text": ("/v1/embeddings", VECTOR, [json_answer({"data": None})]),
    "helm-88: an answer of another provider's shape": (
        CHAT,
        ASK,
        [json_answer({"completions": [{"data": {"text": "a"}}]})],
    ),
    "one of two prompts has no text": (
        "/v1/completions",
        {"model": "m", "prompt": ["a", "b"]},
        [
            json_answer(
                {
                    "choices": [
                        {"index": 0, "text": "a", "finish_reason": "stop"},
                        {"index": 1, "text": None, "finish_reason": "stop"},
                    ]
                }
            )
        ],
    ),
    "more choices than were asked for": (
        CHAT,
        STREAM,
        stream(
            TEXT,
            {"choices": [{**TEXT["choices"][0], "index": 1}]},
            STOP,
            {"choices": [{**STOP["choices"][0], "index": 1}]},
            DONE,
        ),
    ),
}


@pytest.mark.parametrize("name", NOT_WHOLE)
async def test_it_is_never_kept(send: Any, name: str) -> None:
    path, body, play = NOT_WHOLE[name]
    async with WireServer(to_posts(play)) as upstream, run_proxy(upstream.url) as proxy:
        got = [await send(proxy.address + path, body) for _ in range(2)]
        assert posts(upstream) in (2, 3)
        assert not any("stored" in each.cache or "; hit" in each.cache for each in got)
        assert proxy.app.ledger.as_dict()["stored"] == 0


WHOLE: dict[str, tuple[str, Any, Play]] = {
    "sudocode-576: half of message_stop": (
        "/v1/messages",
        CLAUDE,
        [sse_head(), sse(START, DELTA, END, b'event: message_stop\ndata: {"type":"m'), LAST],
    ),
    "Reasonix-8756: no message_stop": ("/v1/messages", CLAUDE, stream(START, DELTA, END)),
    "xaibo-33: a limit cuts a tool call": (
        CHAT,
        ASK,
        [
            json_answer(
                {
                    "choices": [
                        {
                            "index": 0,
                            "message": {"tool_calls": [{"function": {"name": "f", "arguments": '{"a'}}]},
                            "finish_reason": "length",
                        }
                    ]
                }
            )
        ],
    ),
    "mistral-vibe-130: reasoning alone": (
        CHAT,
        ASK,
        [
            json_answer(
                {"choices": [{"index": 0, "message": {"content": None, "reasoning": "hm"}, "finish_reason": "stop"}]}
            )
        ],
    ),
    "vllm-41902: tokens without a word": (CHAT, ASK, [json_answer(chat_body(None))]),  # type: ignore[arg-type]
    "litellm-37710: incomplete, no message": (
        "/v1/responses",
        {"model": "m", "input": "x"},
        [
            json_answer(
                {
                    "status": "incomplete",
                    "incomplete_details": {"reason": "max_output_tokens"},
                    "output": [],
                    "usage": {"input_tokens": 1, "output_tokens": 16},
                }
            )
        ],
    ),
    "a vector with zeros in it": (
        "/v1/embeddings",
        VECTOR,
        [json_answer({"data": [{"index": 0, "embedding": [0.0, 0.5]}]})],
    ),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_it_is_kept(send: Any, name: str) -> None:
    path, body, play = WHOLE[name]
    async with WireServer(to_posts(play)) as upstream, run_proxy(upstream.url) as proxy:
        first, second = [await send(proxy.address + path, body) for _ in range(2)]
        assert posts(upstream) == 1
        assert "; hit" in second.cache
        assert first.body.startswith(second.body)
        assert len(first.body) - len(second.body) < 50  # half an event behind the end is not recorded


async def test_geminis_error_in_an_array_under_200_is_what_its_code_says(send: Any) -> None:
    """gemini-cli-6454: a rate limit, not an answer that may have been billed."""
    error = [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "x"}}]
    plays = ([json_answer(error)], [json_answer(WHOLE_CANDIDATE)])
    async with WireServer(to_posts(*plays)) as upstream, run_proxy(upstream.url) as proxy:
        got = await send(proxy.address + "/v1beta/models/g:streamGenerateContent", PROMPT)
        assert (got.status, posts(upstream)) == (200, 2)
        calls: Any = proxy.app.ledger.as_dict()["calls"]
        assert (calls["refused"], calls["maybe_billed"], calls["answered"]) == (1, 0, 1)


WHOLE_CANDIDATE = [{"candidates": [{"index": 0, "content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}]}]
