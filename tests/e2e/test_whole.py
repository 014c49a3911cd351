"""Answers as real servers send them, byte for byte, over raw sockets: what is kept, what is not, when text is out."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from kdproxy.testing.proxy import run_proxy
from tests.wire import (
    Close,
    Heartbeat,
    Reset,
    WireServer,
    answer,
    chat,
    chat_body,
    chunked,
    json_answer,
    sse,
    sse_head,
)
from tests.wire.answers import DONE, LAST, USAGE, stop, token
from tests.wire.asks import ASK, CHAT, PLAIN, STREAM, WITH_USAGE

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("fast_backoff")]


async def asked_twice(send: Any, play: list[Any], body: Any = STREAM, path: str = CHAT, **settings: Any) -> Any:
    """Return the first answer, and how many calls two equal questions made."""
    async with WireServer(play) as upstream, run_proxy({"u": {"url": upstream.url, **settings}}) as proxy:
        first = await send(proxy.address + path, body)
        second = await send(proxy.address + path, body)
        calls = sum(request.line.startswith("POST") for request in upstream.requests)
        assert ("; hit" in second.cache) == (calls == 1)
        return first, second, calls


MESSAGE = "/v1/messages"
CLAUDE = {**ASK, "max_tokens": 9}
GEMINI = "/v1beta/models/g:generateContent"
GEMINI_STREAM = "/v1beta/models/g:streamGenerateContent?alt=sse"
PROMPT = {"contents": [{"parts": [{"text": "Why?"}]}]}
START = {"type": "message_start", "message": {"type": "message", "usage": {"input_tokens": 3, "output_tokens": 0}}}
DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
FAILED = {"type": "response.completed", "response": {"status": "failed", "error": {"code": "server_error"}}}
TEXT = {"type": "response.output_text.delta", "delta": "a"}
PART = {"candidates": [{"content": {"parts": [{"text": "a"}]}, "index": 0}]}

NEVER_KEPT: dict[str, tuple[str, Any, list[Any]]] = {
    "sglang-3912: finish_reason is empty in every chunk, and half of it came": (
        CHAT,
        STREAM,
        [sse_head(), sse(token(reason=""), token(reason="")), LAST],
    ),
    "the same in legacy completions": (
        "/v1/completions",
        {"model": "m", "prompt": "x", "stream": True},
        [sse_head(), sse({"choices": [{"index": 0, "text": "a", "finish_reason": ""}]}, DONE), LAST],
    ),
    "gonka-1722: text, then [DONE]": (CHAT, STREAM, [sse_head(), sse(token(), DONE), LAST]),
    "one of two choices is cut": (
        CHAT,
        {**STREAM, "n": 2},
        [sse_head(), sse(token(), token(index=1), stop(), DONE), LAST],
    ),
    "older vLLM's error chunk": (
        CHAT,
        STREAM,
        [sse_head(), sse(token(), {"object": "error", "message": "x", "code": 500}, stop(), DONE), LAST],
    ),
    "an error as a bare line": (
        CHAT,
        STREAM,
        [sse_head(), sse(token(), b'{"error": {"message": "x"}}\n\n', stop(), DONE), LAST],
    ),
    "network_error in a stream": (CHAT, STREAM, [sse_head(), sse(token(), stop("network_error"), DONE), LAST]),
    "ERROR in capitals": (CHAT, STREAM, [sse_head(), sse(token(), stop("ERROR"), DONE), LAST]),
    "agent-afk-635: message_stop alone": (
        MESSAGE,
        {**CLAUDE, "stream": True},
        [sse_head(), sse(START, DELTA, {"type": "message_stop"}), LAST],
    ),
    "a completed response whose status is failed": (
        "/v1/responses",
        {"model": "m", "input": "x", "stream": True},
        [sse_head(), sse(TEXT, FAILED), LAST],
    ),
    "ollama-13371: null, all counts 0": (
        CHAT,
        ASK,
        [json_answer({**chat_body(None), "usage": {"prompt_tokens": 0, "completion_tokens": 0}})],  # type: ignore[arg-type]
    ),
    "no message": (CHAT, ASK, [json_answer({"choices": [{"index": 0, "finish_reason": "stop"}]})]),
    "a stream without text": (CHAT, STREAM, [sse_head(), sse(token(""), stop(), DONE), LAST]),
    "python-genai-1836": (
        GEMINI,
        PROMPT,
        [json_answer({"candidates": [{"index": 0, "finishReason": "MALFORMED_FUNCTION_CALL"}]})],
    ),
    "a row of nulls": (
        "/v1/embeddings",
        {"model": "m", "input": "x"},
        [json_answer({"data": [{"index": 0, "embedding": [None, None]}]})],
    ),
    "an empty row": (
        "/v1/embeddings",
        {"model": "m", "input": "x"},
        [json_answer({"data": [{"index": 0, "embedding": []}]})],
    ),
    "three asked, one came": (CHAT, {**ASK, "n": 3}, [chat()]),
    "Gemini was cut after STOP": (
        GEMINI_STREAM,
        PROMPT,
        [sse_head(), sse({"candidates": [{**PART["candidates"][0], "finishReason": "STOP"}]}, PART), LAST],
    ),
}


BOUGHT_AGAIN = {"python-genai-1836", "a row of nulls", "an empty row"}
"""Whole JSON that is broken, whatever the settings of its upstream: three calls, then its last words without one."""


@pytest.mark.parametrize("name", NEVER_KEPT)
async def test_what_did_not_end_well_is_delivered_as_it_came_and_never_kept(send: Any, name: str) -> None:
    path, body, play = NEVER_KEPT[name]
    first, second, calls = await asked_twice(send, play, body, path)
    assert (first.status, calls) == (200, 3 if name in BOUGHT_AGAIN else 2)
    assert first.body == second.body
    assert "detail=" in first.cache


@pytest.mark.parametrize("reason", [None, "", False, "network_error", "abort", "UNLOAD"])
async def test_json_with_such_a_reason_is_not_kept(send: Any, reason: Any) -> None:
    async with WireServer([json_answer(chat_body(finish_reason=reason))]) as upstream, run_proxy(upstream.url) as proxy:
        got = await send(proxy.address + CHAT, ASK)
        assert "stored" not in got.cache


HALF = b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}\n\n'

KEPT: dict[str, tuple[str, Any, list[Any]]] = {
    "openclaw-96497: SSE as application/json": (
        CHAT,
        STREAM,
        [sse_head(kind="application/json"), sse(token(), stop(), DONE), LAST],
    ),
    "SSE without any type": (CHAT, STREAM, [sse_head(kind=""), sse(token(), stop(), DONE), LAST]),
    "openai-php-736: JSON as text/plain": (CHAT, ASK, [answer(orjson.dumps(chat_body()), kind="text/plain")]),
    "JSON as text/event-stream": (CHAT, ASK, [answer(orjson.dumps(chat_body()), kind="text/event-stream")]),
    "eliza-30904: half an emoji in each chunk": (
        CHAT,
        STREAM,
        [
            sse_head(),
            sse(b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}\n\n'),
            sse(token(), stop(), DONE),
            LAST,
        ],
    ),
    "sglang-2955: -Infinity": (
        CHAT,
        ASK,
        [answer(orjson.dumps(chat_body())[:-1] + b',"logprobs":[-Infinity, NaN]}')],
    ),
    "copilot-api-88: a heartbeat event": (
        CHAT,
        STREAM,
        [sse_head(), sse(token(), b'data: ""\n\n', stop(), DONE), LAST],
    ),
    "a byte order mark before JSON": (CHAT, ASK, [answer(b"\xef\xbb\xbf" + orjson.dumps(chat_body()))]),
    "a byte order mark before SSE": (
        CHAT,
        STREAM,
        [sse_head(), sse(b"\xef\xbb\xbf: c\n\n", token(), stop(), DONE), LAST],
    ),
    "status 201": (CHAT, ASK, [json_answer(chat_body(), status="201 Created")]),
    "data: without a space": (
        CHAT,
        STREAM,
        [sse_head(), sse(b"data:" + orjson.dumps(token()) + b"\n\n", stop(), b"data:[DONE]\n\n"), LAST],
    ),
    "a reset after the finish reason": (CHAT, STREAM, [sse_head(), sse(token(), stop()), Reset()]),
    "a close after the finish reason": (CHAT, STREAM, [sse_head(), sse(token(), stop()), Close()]),
    "half of [DONE]": (CHAT, STREAM, [sse_head(), sse(token(), stop(), b"data: [DO"), Close()]),
    "Azure's filter chunk after it": (
        CHAT,
        STREAM,
        [sse_head(), sse(token(), stop(), {"choices": [{"index": 0, "delta": {}, "finish_reason": None}]}), LAST],
    ),
    "no member finish_reason": (CHAT, ASK, [json_answer({"choices": [{"index": 0, "message": {"content": "a"}}]})]),
    "a blocked prompt": (GEMINI, PROMPT, [json_answer({"promptFeedback": {"blockReason": "SAFETY"}})]),
    "a blocked prompt in a stream": (
        GEMINI_STREAM,
        PROMPT,
        [sse_head(), sse({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}), LAST],
    ),
    "a new word": (CHAT, ASK, [json_answer(chat_body(finish_reason="moonrise"))]),
    "an empty final output after text": (
        "/v1/responses",
        {"model": "m", "input": "x", "stream": True},
        [
            sse_head(),
            sse(TEXT, {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": []}}),
            LAST,
        ],
    ),
}


@pytest.mark.parametrize("name", KEPT)
async def test_a_good_answer_is_kept_whatever_its_wrapping(send: Any, name: str) -> None:
    path, body, play = KEPT[name]
    first, second, calls = await asked_twice(send, play, body, path)
    assert (first.status, calls) == (first.status, 1)
    assert first.status in (200, 201)
    kept = first.body.replace(b"\xef\xbb\xbf: c\n\n", b"")
    assert second.body == (kept.removesuffix(b"data: [DO") if name == "half of [DONE]" else kept)
    assert second.status == first.status


# -- live -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "first", "rest"),
    [
        (CHAT, STREAM, token(reason=""), [token(reason=""), stop(), DONE]),
        (CHAT, STREAM, token(reason="stop"), [token(reason="stop"), DONE]),
        (GEMINI_STREAM, PROMPT, {"candidates": [{**PART["candidates"][0], "finishReason": "STOP"}]}, [PART]),
    ],
    ids=["empty reasons", "stop in every chunk", "STOP in every chunk"],
)
async def test_text_goes_out_as_it_comes(
    http: Any, reading: Callable[[Any], Any], path: str, body: Any, first: Any, rest: list[Any]
) -> None:
    """No heuristic may hold a whole stream back."""
    gate = asyncio.Event()
    play = [sse_head(), sse(first), gate, sse(*rest), LAST]
    async with (
        WireServer(play) as upstream,
        run_proxy(upstream.url) as proxy,
        http.post(proxy.address + path, json=body, headers=PLAIN) as response,
    ):
        reader = reading(response)
        await reader.until(b'"a"')
        gate.set()
        whole = await reader.rest()
        assert whole.count(b'"a"') == 2


async def test_a_stream_that_sends_comments_for_ever_is_finished_and_kept(send: Any) -> None:
    """bifrost-6784: the client never saw the finish reason."""
    play = [sse_head(), sse(token(), stop()), Heartbeat(chunked(b": OPENROUTER PROCESSING\n\n"))]
    first, second, calls = await asked_twice(send, play)
    assert calls == 1
    assert first.body.startswith(b"data: " + orjson.dumps(token())[:10])
    assert second.body.count(b"data:") == 2
    assert b": OPEN" not in second.body


async def test_usage_that_was_asked_for_is_waited_for(send: Any) -> None:
    gate = asyncio.Event()

    async def wait(connection: Any, request: Any) -> None:
        # Longer than the grace without usage: only then does the usage come.
        await asyncio.sleep(1.5)
        gate.set()

    play = [sse_head(), sse(token(), stop()), wait, sse(USAGE, DONE), LAST]
    first, second, calls = await asked_twice(send, play, WITH_USAGE)
    assert calls == 1
    assert b'"completion_tokens"' in first.body
    assert second.body == first.body


async def test_a_gemini_stream_that_stays_open_after_stop_is_not_taken_for_whole(send: Any) -> None:
    first = {"candidates": [{**PART["candidates"][0], "finishReason": "STOP"}]}
    async with WireServer([sse_head(), sse(first), Reset()]) as upstream, run_proxy(upstream.url) as proxy:
        with pytest.raises(Exception, match=r".*"):
            await send(proxy.address + GEMINI_STREAM, PROMPT)
        with pytest.raises(Exception, match=r".*"):
            await send(proxy.address + GEMINI_STREAM, PROMPT)
        assert len(upstream.requests) >= 2


# -- servers that differ ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "body", "play"),
    [
        ({"end": "done"}, STREAM, [sse_head(), sse(token(), DONE), LAST]),
        ({"choices": "as-served"}, {**ASK, "n": 3}, [chat()]),
        ({"keep_empty": True}, ASK, [json_answer({**chat_body(""), "usage": None})]),
    ],
)
async def test_the_third_in_a_row_names_the_setting_and_the_setting_keeps_it(
    send: Any, caplog: pytest.LogCaptureFixture, settings: dict[str, Any], body: Any, play: list[Any]
) -> None:
    (name, value), *_ = settings.items()
    with caplog.at_level(logging.WARNING, logger="kdproxy.engine"):
        async with WireServer(play) as upstream, run_proxy({"u": {"url": upstream.url}}) as proxy:
            for _ in range(4):
                await send(proxy.address + CHAT, body)
            assert len(upstream.requests) == 3  # the fourth request gets the last answer again
    text = "true" if value is True else f'"{value}"'
    assert [record.getMessage() for record in caplog.records if f"set {name} = {text}" in record.getMessage()][1:] == []
    assert any(f"set {name} = {text}" in record.getMessage() for record in caplog.records)
    _, _, calls = await asked_twice(send, play, body, **settings)
    assert calls == 1


async def test_a_new_word_is_logged_once(send: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="kdproxy.engine"):
        async with (
            WireServer([json_answer(chat_body(finish_reason="moonrise"))]) as upstream,
            run_proxy(upstream.url) as proxy,
        ):
            for seed in range(3):
                assert "stored" in (await send(proxy.address + CHAT, {**ASK, "seed": seed})).cache
    assert [record.reason for record in caplog.records if hasattr(record, "reason")].count("moonrise") == 1


# -- before the first token -------------------------------------------------------------------------------------

HTML = answer(b"<!DOCTYPE html><html><body>Bad gateway</body></html>", kind="text/html")
OVERLOADED = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n'
GOOD = [sse_head(), sse(START, DELTA, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}), LAST]
HOSTED = {**CLAUDE, "stream": True, "tools": [{"type": "web_search_20250305", "name": "web_search"}]}


@pytest.mark.parametrize(
    "bad",
    [
        [HTML],
        [answer(b"")],
        [answer(b"\n\n", kind="text/event-stream")],
        [sse_head(), sse(OVERLOADED), LAST],
        [sse_head(), sse(b": c\n\n", b": c\n\n", OVERLOADED), LAST],
        [sse_head(), sse(START, b'event: ping\ndata: {"type":"ping"}\n\n', OVERLOADED), LAST],
        [sse_head(kind="application/json"), sse(START, OVERLOADED), LAST],
        [sse_head(), sse(START), LAST],
    ],
)
@pytest.mark.parametrize("body", [{**CLAUDE, "stream": True}, HOSTED], ids=["kept", "unkept"])
async def test_an_attempt_that_gave_nothing_is_tried_again(send: Any, bad: list[Any], body: Any) -> None:
    async with WireServer(bad, GOOD) as upstream, run_proxy(upstream.url) as proxy:
        got = await send(proxy.address + MESSAGE, body, headers={"anthropic-version": "2023-06-01"})
        assert got.status == 200
        assert b"end_turn" in got.body
        assert len(upstream.requests) == 2
