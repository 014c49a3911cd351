"""What may have been billed is not bought again without bound, and what is transient is not seen: over raw sockets."""

import asyncio
import contextlib
from typing import Any

import aiohttp
import orjson
import pytest

from kdproxy.testing.proxy import RunningProxy, run_proxy
from tests.wire import Play, Request, Reset, WireServer, answer, chat, json_answer, sse, sse_head
from tests.wire.asks import ASK, CHAT
from tests.wire.posts import posts, to_posts

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("fast_backoff")]

UNKEPT = {**ASK, "tools": [{"type": "web_search"}]}
PAGE = b"<!DOCTYPE html><html><head><title>Bad gateway</title></head></html>"
CUT = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"id":'
SILENCE: Play = [asyncio.Event()]


def calls(proxy: RunningProxy) -> dict[str, int]:
    found: Any = proxy.app.ledger.as_dict()["calls"]
    return {name: count for name, count in found.items() if count}


GEMINI = "/v1beta/models/g:generateContent"
FORMS = {
    "json": (CHAT, ASK, [CUT, Reset()]),
    "reset": (CHAT, ASK, [Reset()]),
    "stream before its first token": (CHAT, {**ASK, "stream": True}, [sse_head() + sse(": ping\n\n"), Reset()]),
    "anthropic": ("/v1/messages", {**ASK, "max_tokens": 9}, [CUT, Reset()]),
    "gemini": (GEMINI, {"contents": [{"parts": [{"text": "x"}]}]}, [CUT, Reset()]),
    "embeddings": ("/v1/embeddings", {"model": "m", "input": "x"}, [CUT, Reset()]),
    "unkept": (CHAT, UNKEPT, [CUT, Reset()]),
    "unkept stream": (CHAT, {**UNKEPT, "stream": True}, [sse_head(), Reset()]),
}


@pytest.mark.parametrize("form", FORMS)
async def test_an_always_cut_question_asked_by_five_requests_is_three_calls(send: Any, form: str) -> None:
    path, body, play = FORMS[form]
    async with WireServer(to_posts(play)) as upstream, run_proxy(upstream.url) as proxy:
        got = [await send(proxy.address + path, body) for _ in range(5)]
        assert posts(upstream) == 3
        assert calls(proxy)["maybe_billed"] == 3
    for each in got:
        assert (each.status, each.headers["x-should-retry"]) == (502, "false")
        assert b"3 calls of this question returned no answer" in each.body


async def test_an_answer_that_is_cut_after_its_head_is_out_is_bounded_too(http: Any) -> None:
    """The client has seen its beginning, so it is not asked for again here, but by the client."""
    begun = sse_head() + sse({"choices": [{"index": 0, "delta": {"content": "Hel"}}]})
    async with WireServer(to_posts([begun, Reset()])) as upstream, run_proxy(upstream.url) as proxy:
        statuses = []
        for _ in range(5):
            async with http.post(proxy.address + CHAT, json={**ASK, "stream": True}) as response:
                statuses.append(response.status)
                with contextlib.suppress(aiohttp.ClientPayloadError):
                    await response.read()
        assert (posts(upstream), statuses) == (3, [200, 200, 200, 502, 502])
        assert calls(proxy)["maybe_billed"] == 3


@pytest.mark.parametrize("body", [ASK, UNKEPT], ids=["kept", "unkept"])
async def test_the_client_gets_the_providers_own_last_words(send: Any, body: dict[str, Any]) -> None:
    words = json_answer({"error": {"message": "The model took too long."}}, status="504 Gateway Timeout")
    async with WireServer(to_posts([words])) as upstream, run_proxy(upstream.url) as proxy:
        for _ in range(2):
            got = await send(proxy.address + CHAT, body)
            assert (got.status, got.headers.getall("x-should-retry")) == (504, ["false"])
            assert orjson.loads(got.body) == {"error": {"message": "The model took too long."}}
        assert posts(upstream) == 3


async def test_silence_is_three_calls_and_not_eleven(send: Any) -> None:
    async with WireServer(to_posts(SILENCE)) as upstream, run_proxy(upstream.url, first_byte_seconds=0.2) as proxy:
        got = await send(proxy.address + CHAT, ASK)
        assert (got.status, got.headers["x-should-retry"], posts(upstream)) == (502, "false", 3)
        assert b"first_byte_seconds" in got.body


@pytest.mark.parametrize("body", [ASK, UNKEPT, {**ASK, "stream": True}], ids=["kept", "unkept", "stream"])
@pytest.mark.parametrize("where", ["head", "body"])
async def test_a_deadline_is_stretched_to_what_the_client_says_it_waits(send: Any, body: Any, where: str) -> None:
    """An answer slower than our deadline is one call."""

    async def slowly(connection: Any, request: Any) -> None:
        is_stream = b'"stream":true' in request.body.replace(b" ", b"")
        choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}
        whole = sse_head() + sse({"choices": [choice]}, "data: [DONE]\n\n") + b"0\r\n\r\n" if is_stream else chat()
        first = whole[:40] if where == "body" else b""
        await connection.send(first)
        await asyncio.sleep(0.6)
        await connection.send(whole[len(first) :])

    settings = {"first_byte_seconds": 0.2, "read_seconds": 0.2, "total_seconds": 0.3}
    async with WireServer(to_posts([slowly])) as upstream, run_proxy(upstream.url, **settings) as proxy:
        got = await send(proxy.address + CHAT, body, headers={"x-stainless-read-timeout": "10"})
        assert (got.status, posts(upstream)) == (200, 1)


TRANSIENT = (500, 502, 503, 504, 507, *range(520, 528), 529, 530, 598, 599, 408, 409, 425, 499)


@pytest.mark.parametrize("body", [ASK, UNKEPT, {**ASK, "stream": True}], ids=["kept", "unkept", "stream"])
async def test_a_transient_status_is_not_seen(send: Any, body: dict[str, Any]) -> None:
    for status in TRANSIENT:
        bad = answer(PAGE, status=f"{status} x", kind="text/html")
        good = chat()
        if body.get("stream"):
            choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}
            good = sse_head() + sse({"choices": [choice]}, "data: [DONE]\n\n") + b"0\r\n\r\n"
        async with WireServer(to_posts([bad], [good])) as upstream, run_proxy(upstream.url) as proxy:
            got = await send(proxy.address + CHAT, body)
            assert (got.status, posts(upstream)) == (200, 2), status


NO_ANSWERS = {
    "empty": answer(b""),
    "blank": answer(b" \n\n"),
    "page": answer(PAGE, kind="text/html"),
    "page as JSON": answer(PAGE),
    "JSON that breaks off": answer(b'{"id":"1","choices":[{"index":0,"message":{"role":"assistant","content":"Hel'),
    "heartbeat, then an error": sse_head()
    + sse(": ping\n\n", {"error": {"message": "x", "type": "server_error"}})
    + b"0\r\n\r\n",
}


@pytest.mark.parametrize("body", [ASK, UNKEPT], ids=["kept", "unkept"])
@pytest.mark.parametrize("kind", NO_ANSWERS)
async def test_no_answer_in_a_200_is_not_seen(send: Any, kind: str, body: dict[str, Any]) -> None:
    plays = ([NO_ANSWERS[kind]], [NO_ANSWERS[kind]], [chat()])
    async with WireServer(to_posts(*plays)) as upstream, run_proxy(upstream.url) as proxy:
        got = await send(proxy.address + CHAT, body)
        assert (got.status, posts(upstream)) == (200, 3)
        assert b"chatcmpl" in got.body


@pytest.mark.parametrize("kind", ["empty", "page", "JSON that breaks off"])
async def test_no_answer_never_goes_out_as_one(send: Any, kind: str) -> None:
    async with WireServer(to_posts([NO_ANSWERS[kind]])) as upstream, run_proxy(upstream.url) as proxy:
        got = await send(proxy.address + CHAT, ASK)
        assert (got.status, got.headers["x-should-retry"], posts(upstream)) == (502, "false", 3)


@pytest.mark.parametrize("status", [403, 404])
async def test_a_page_under_a_final_status_is_tried_three_times_and_given_as_it_is_or_explained(
    send: Any, status: int
) -> None:
    page = answer(PAGE, status=f"{status} x", kind="text/html")
    async with WireServer(to_posts([page])) as upstream, run_proxy(upstream.url) as proxy:
        got = await send(proxy.address + CHAT, ASK)
        if status == 404:
            # A page says no more than that there is no such path: its client hears which.
            assert (got.status, got.headers["x-should-retry"], posts(upstream)) == (404, "false", 3)
            assert b"upstream_no_such_path" in got.body
            assert (upstream.url + CHAT).encode() in got.body
        else:
            assert (got.status, got.body, posts(upstream)) == (status, PAGE, 3)
        assert calls(proxy) == {"refused": 3}


async def test_the_ledger_counts_what_the_wire_saw(send: Any) -> None:
    error = json_answer({"error": {"message": "x"}}, status="500 x")
    plays = (
        *([chat("one")], [error], [error], [chat("two")], [CUT, Reset()], [chat("three")], [Reset()]),
        *([json_answer({"error": {"message": "no"}}, status="400 x")],),
    )
    async with WireServer(to_posts(*plays)) as upstream, run_proxy(upstream.url) as proxy:
        for seed in range(4):
            await send(proxy.address + CHAT, {**ASK, "seed": seed})
        await send(proxy.address + "/v1/files", {"x": 1})
        await send(proxy.address + "/v1/models")
        assert calls(proxy) == {"answered": 3, "refused": 3, "maybe_billed": 2, "passed_through": 2}
        assert proxy.app.ledger.as_dict()["upstream_attempts"] == posts(upstream) - 1 == 8
        assert len(upstream.requests) == 10


async def test_what_reached_nobody_is_no_call(send: Any) -> None:
    async with WireServer(to_posts([chat()])) as upstream:
        url = upstream.url
    async with run_proxy(url, retry_attempts=3) as proxy:
        got = await send(proxy.address + CHAT, ASK)
        assert got.status == 503
        assert calls(proxy) == {}


async def test_a_body_that_crashes_its_server_does_not_stop_the_others(send: Any) -> None:
    """Its connection is reset each time; healthy questions between and beside it are answered, and no breaker opens."""

    def play(request: Request) -> Play:
        if request.line.startswith("GET"):
            return [answer(b"{}", status="404 x")]
        return [Reset()] if b"bad" in request.body else [chat()]

    bad = {**ASK, "messages": [{"role": "user", "content": "bad"}]}
    tables = {"own": {"url": "", "billed": False}}
    async with WireServer(play) as upstream:
        tables["own"]["url"] = upstream.url
        async with run_proxy(tables) as proxy:
            crashing = asyncio.create_task(send(proxy.address + CHAT, bad))
            for seed in range(30):
                assert (await send(proxy.address + CHAT, {**ASK, "seed": seed})).status == 200
            assert proxy.app.lanes()[0]["breaker_opened"] == 0
            crashing.cancel()


OWN = {
    "vllm": {"/v1/models": json_answer({"object": "list", "data": [{"id": "m", "owned_by": "vllm"}]})},
    "sglang": {"/get_model_info": json_answer({"model_path": "m", "is_generation": True})},
    "llama.cpp": {"/v1/models": answer(b"{}", status="401 x", headers=("Server: llama.cpp",))},
    "ollama": {"/": answer(b"Ollama is running", kind="text/plain")},
}


@pytest.mark.parametrize("kind", [*OWN, "a gateway"])
async def test_a_server_of_ones_own_is_known_by_its_words_and_not_by_its_address(send: Any, kind: str) -> None:
    failing = [[Reset()]] * 5
    pages = OWN.get(kind, {"/v1/models": json_answer({"data": [{"id": "gpt", "owned_by": "openai"}]})})

    def play(request: Request) -> Play:
        if request.line.startswith("GET"):
            return [pages.get(request.path, answer(b"{}", status="404 x", headers=("Server: uvicorn",)))]
        return failing.pop() if failing else [chat()]

    async with WireServer(play) as upstream, run_proxy(upstream.url) as proxy:
        got = await send(proxy.address + CHAT, ASK)
        assert (got.status, posts(upstream)) == ((502, 3) if kind == "a gateway" else (200, 6))
