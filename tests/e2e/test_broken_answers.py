"""A whole answer that says that it failed is a failed call: bounded, bought again, never kept. Over raw sockets."""

import asyncio
from typing import Any

import orjson
import pytest

from kdproxy.testing.proxy import run_proxy
from tests.wire import Play, Request, WireServer, answer, chat, chat_body, chunked, json_answer, sse, sse_head
from tests.wire.asks import ASK, CHAT, STREAM
from tests.wire.posts import posts, to_posts

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("fast_backoff")]

UNKEPT = {**ASK, "tools": [{"type": "web_search"}]}
GEMINI = "/v1beta/models/g:generateContent"
PROMPT = {"contents": [{"parts": [{"text": "x"}]}]}
MESSAGE = {"type": "message", "content": [{"type": "text", "text": "a"}], "stop_reason": "error"}
LAST = chunked(end=True)


def two(*reasons: Any) -> dict[str, Any]:
    return {
        "choices": [
            {"index": index, "message": {"content": "a"}, "finish_reason": reason}
            for index, reason in enumerate(reasons)
        ]
    }


BROKEN: dict[str, tuple[str, Any, Any]] = {
    "an error reason": (CHAT, ASK, chat_body(finish_reason="error")),
    "an error beside choices": (CHAT, ASK, {**chat_body(), "success": False}),
    "a choice's error": (CHAT, ASK, {"choices": [{**chat_body()["choices"][0], "error": {"code": 502}}]}),
    "one of two was cut": (CHAT, {**ASK, "n": 2}, two("stop", None)),
    "no choices": (CHAT, ASK, {"id": "1", "choices": []}),
    "an error reason in place of a stream": (CHAT, STREAM, chat_body(finish_reason="abort")),
    "completions": (
        "/v1/completions",
        {"model": "m", "prompt": "x"},
        {"choices": [{"text": "a", "finish_reason": "error"}]},
    ),
    "anthropic": ("/v1/messages", {**ASK, "max_tokens": 9}, MESSAGE),
    "gemini": (GEMINI, PROMPT, {"candidates": [{"index": 0, "finishReason": "MALFORMED_FUNCTION_CALL"}]}),
    "responses": ("/v1/responses", {"model": "m", "input": "x"}, {"status": "cancelled", "output": []}),
    "compact": ("/v1/responses/compact", {"model": "m", "input": "x"}, {"object": "response.compaction", "output": []}),
    "interactions": ("/v1beta/interactions", {"model": "m", "input": "x", "store": False}, {"status": "failed"}),
    "embeddings": ("/v1/embeddings", {"model": "m", "input": "x"}, {"data": [{"index": 0, "embedding": [None]}]}),
    "moderations": ("/v1/moderations", {"model": "m", "input": "x"}, {"results": []}),
    "counts": ("/v1/messages/count_tokens", ASK, {"input_tokens": None}),
    "rerank": ("/v1/rerank", {"model": "m", "query": "q", "documents": ["a"]}, {"results": [{"index": 0}]}),
    "images": ("/v1/images/generations", {"model": "gpt-image-1", "prompt": "x"}, {"data": [{"b64_json": ""}]}),
    "unkept": (CHAT, UNKEPT, chat_body(finish_reason="error")),
    "unkept responses": (
        "/v1/responses",
        {"model": "m", "input": "x", "background": True},
        {"status": "failed", "output": []},
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_answer_asked_by_five_requests_is_three_calls_and_its_own_last_words(
    send: Any, kind: str
) -> None:
    path, body, members = BROKEN[kind]
    async with WireServer(to_posts([json_answer(members)])) as upstream, run_proxy(upstream.url) as proxy:
        got = [await send(proxy.address + path, body) for _ in range(5)]
        calls: Any = proxy.app.ledger.as_dict()["calls"]
        assert (posts(upstream), calls["maybe_billed"], calls["answered"]) == (3, 3, 0)
    for each in got:
        assert (each.status, each.headers["x-should-retry"]) == (200, "false")
        assert orjson.loads(each.body) == members
        assert "stored" not in each.cache


@pytest.mark.parametrize("body", [ASK, UNKEPT, STREAM], ids=["kept", "unkept", "for a stream"])
async def test_a_broken_answer_is_not_seen_where_the_next_one_is_whole(send: Any, body: Any) -> None:
    bad = [json_answer(chat_body("half", finish_reason="error"))]
    async with WireServer(to_posts(bad, bad, [chat("fine")])) as upstream, run_proxy(upstream.url) as proxy:
        got = await send(proxy.address + CHAT, body)
        assert (got.status, posts(upstream)) == (200, 3)
        assert b"fine" in got.body


TOKENS = [{"choices": [{"index": index, "delta": {"content": "a"}, "finish_reason": "stop"}]} for index in range(2)]
NOT_STORABLE: dict[str, tuple[Any, Play]] = {
    "no finish reason": (ASK, [json_answer(chat_body(finish_reason=None))]),
    "fewer choices": ({**ASK, "n": 3}, [json_answer(two("stop"))]),
    "more choices": (ASK, [json_answer(two("stop", "stop"))]),
    "more choices in a stream": (STREAM, [sse_head(), sse(*TOKENS, "data: [DONE]\n\n"), LAST]),
    "empty": (ASK, [json_answer({**chat_body(""), "usage": {"completion_tokens": 0}})]),
    "status 206": (ASK, [json_answer(chat_body("a"), status="206 Partial Content")]),
    "a stream that was not requested": (ASK, [sse_head(), sse(TOKENS[0], "data: [DONE]\n\n"), LAST]),
    "a coding": (ASK, [answer(b"coded", headers=("Content-Encoding: x-own",))]),
}


@pytest.mark.parametrize("kind", NOT_STORABLE)
async def test_what_cannot_be_stored_is_bought_for_three_requests_and_then_given_again(send: Any, kind: str) -> None:
    body, play = NOT_STORABLE[kind]
    async with WireServer(to_posts(play)) as upstream, run_proxy(upstream.url) as proxy:
        got = [await send(proxy.address + CHAT, body) for _ in range(5)]
        calls: Any = proxy.app.ledger.as_dict()["calls"]
        assert (posts(upstream), calls["answered"]) == (3, 3)
        assert ["x-should-retry" in each.headers for each in got] == [False, False, False, True, True]
        assert "detail=incomplete" in got[4].cache
        assert len({(each.status, each.body, each.headers["content-type"]) for each in got}) == 1
        await send(proxy.address + CHAT, {**body, "seed": 1})
        assert posts(upstream) == 4


async def test_an_answer_that_is_too_long_to_be_given_again_is_bought_for_each_request(send: Any) -> None:
    play = [json_answer(chat_body("a" * 70_000, finish_reason=None))]
    async with WireServer(to_posts(play)) as upstream, run_proxy(upstream.url) as proxy:
        assert [(await send(proxy.address + CHAT, ASK)).status for _ in range(5)] == [200] * 5
        assert posts(upstream) == 5


IN_ONE_CALL: dict[str, tuple[str, Any, Any]] = {
    "still under way": ("/v1/responses", {"model": "m", "input": "x"}, {"status": "in_progress", "output": []}),
    "unkept: a job that is queued": (
        "/v1/responses",
        {"model": "m", "input": "x", "background": True},
        {"id": "resp_1", "status": "queued", "output": []},
    ),
    "unkept: a picture's link": (
        "/v1/images/generations",
        {"model": "dall-e-3", "prompt": "x"},
        {"data": [{"url": "http://127.0.0.1/x.png"}]},
    ),
    "unkept: a shape of its own": (CHAT, UNKEPT, {"answer": "a"}),
}


@pytest.mark.parametrize("kind", IN_ONE_CALL)
async def test_what_is_no_failure_is_one_call_for_each_request(send: Any, kind: str) -> None:
    path, body, members = IN_ONE_CALL[kind]
    async with WireServer(to_posts([json_answer(members)])) as upstream, run_proxy(upstream.url) as proxy:
        for count in range(1, 5):
            got = await send(proxy.address + path, body)
            assert (got.status, orjson.loads(got.body), posts(upstream)) == (200, members, count)
            assert "x-should-retry" not in got.headers


FAILED_STREAMS = {
    "kept": (CHAT, STREAM, "error"),
    "unkept": (CHAT, {**UNKEPT, "stream": True}, "error"),
    "cut": (CHAT, {**STREAM, "n": 2}, "stop"),
}


@pytest.mark.parametrize("kind", FAILED_STREAMS)
async def test_a_stream_that_says_that_it_failed_counts_too(send: Any, kind: str) -> None:
    path, body, reason = FAILED_STREAMS[kind]
    tokens = [{"choices": [{"index": i, "delta": {"content": "a"}}]} for i in range(body.get("n", 1))]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    play = [sse_head(), sse(*tokens, end, "data: [DONE]\n\n"), LAST]
    async with WireServer(to_posts(play)) as upstream, run_proxy(upstream.url) as proxy:
        statuses = [(await send(proxy.address + path, body)).status for _ in range(5)]
        assert (posts(upstream), statuses) == (3, [200, 200, 200, 502, 502])


async def test_of_a_free_server_a_broken_answer_is_bounded_by_a_count_while_others_succeed(send: Any) -> None:
    def play(request: Request) -> Play:
        return [json_answer(chat_body(finish_reason="error" if b"bad" in request.body else "stop"))]

    bad = {**ASK, "messages": [{"role": "user", "content": "bad"}]}
    async with WireServer(play) as upstream, run_proxy({"own": {"url": upstream.url, "billed": False}}) as proxy:
        asked = asyncio.create_task(send(proxy.address + CHAT, bad))
        seed = 0
        while not asked.done():
            seed += 1
            assert (await send(proxy.address + CHAT, {**ASK, "seed": seed})).status == 200
            await asyncio.sleep(0.02)
        assert b'"error"' in (await asked).body
        assert sum(b"bad" in request.body for request in upstream.requests) == 6


async def test_what_an_upstream_always_sends_is_its_habit_and_bought_once(send: Any) -> None:
    """Its shape is unknown here, and the next call would bring the same; an error is never a habit."""

    def play(request: Request) -> Play:
        if b"bad" in request.body:
            return [json_answer(chat_body(finish_reason="error"))]
        return [answer(b"{}", status="404 x") if request.line.startswith("GET") else json_answer({"vectors": [[1.0]]})]

    async with WireServer(play) as upstream, run_proxy(upstream.url) as proxy:
        counts = []
        for text in ("a", "b", "c", "d", "e"):
            before = posts(upstream)
            await send(proxy.address + "/v1/embeddings", {"model": "m", "input": text})
            counts.append(posts(upstream) - before)
        assert counts == [3, 3, 3, 1, 1]
        for text in (f"bad {number}" for number in range(7)):
            before = posts(upstream)
            await send(proxy.address + CHAT, {**ASK, "messages": [{"role": "user", "content": text}]})
            assert posts(upstream) - before == 3
        # The server answers in full: nobody else waits.
        assert proxy.app.lanes()[0]["breaker_opened"] == 0


async def test_two_forms_of_one_question_share_its_budget(send: Any) -> None:
    """Both fail at once each time: three calls in all, and no fourth that both thought was theirs."""
    gates = [asyncio.Event() for _ in range(8)]
    left = iter(gates)

    def play(request: Request) -> Play:
        if request.line.startswith("GET"):
            return [answer(b"{}", status="404 x")]
        return [next(left), json_answer({"error": {"message": "late"}}, status="504 Gateway Timeout")]

    async with WireServer(play) as upstream, run_proxy(upstream.url) as proxy:
        asked = [asyncio.create_task(send(proxy.address + CHAT, body)) for body in (ASK, STREAM)]
        await upstream.wait_for_requests(2)
        for gate in gates:
            gate.set()
        got = await asyncio.gather(*asked)
        assert posts(upstream) == 3
        assert [(each.status, each.headers["x-should-retry"]) for each in got] == [(504, "false")] * 2
