"""Refusals for ever, over raw sockets: what reaches a provider that says no, and what others of its lane see of it."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from kdproxy.testing.proxy import run_proxy
from tests.wire import Play, Request, WireServer, answer, chat, json_answer, sse, sse_head

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"

NO_WAITS = [
    "Retry-After: 0",
    "Retry-After: 0.001",
    "Retry-After: Mon, 02 Jan 2006 15:04:05 GMT",
    "retry-after-ms: 0",
    "retry-after-ms: 1",
    "x-ms-retry-after-ms: 1",
    "x-ratelimit-reset-requests: 0s",
    "x-unrelated: 1",
]
"""nodejs/undici#5519, openai/openai-java#878 and their neighbours: waits that are none."""


ERRORS: dict[str, bytes] = {
    "gemini-cli-6454: an array": json_answer(
        [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "0s"}]}}],
        status="429 Too Many Requests",
    ),
    "words that name no wait": json_answer(
        {"error": {"message": "Please try again in 0ms.", "code": "rate_limit_exceeded"}}, status="429 x"
    ),
    "no body": answer(status="429 Too Many Requests"),
    "a CDN's page": answer(b"<html><title>error 1015</title></html>", status="429 x", kind="text/html"),
    "openrouter: in metadata": json_answer(
        {"error": {"code": 429, "message": "Provider returned error", "metadata": {"headers": {"Retry-After": "0"}}}},
        status="429 x",
    ),
    "a rate limit in a 200": json_answer({"error": {"code": 429, "message": "slow down"}}),
    "the same as an event": sse_head() + sse({"error": {"code": 429, "message": "slow down"}}) + b"0\r\n\r\n",
    "anthropic: overloaded in a 200": sse_head()
    + sse('event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n')
    + b"0\r\n\r\n",
    "503, and a wait of nothing": json_answer({"error": "busy"}, status="503 x", headers=("Retry-After: 0",)),
    "529, and a wait of nothing": json_answer({"error": "busy"}, status="529 x", headers=("retry-after-ms: 0",)),
    "500, and the advice to retry": json_answer({"error": "x"}, status="500 x", headers=("x-should-retry: true",)),
    "grok: the free allowance is spent": json_answer(
        {"code": "subscription:free-usage-exhausted", "error": "You've used all the included free usage"},
        status="429 x",
    ),
}
"""What other providers, gateways and CDNs write: each for ever."""


def refusal(*headers: str) -> bytes:
    error = {"error": {"message": "Too many requests.", "type": "rate_limit_exceeded", "code": "rate_limit_exceeded"}}
    return json_answer(error, status="429 Too Many Requests", headers=headers)


def ask(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


async def test_a_wait_of_nothing_is_not_obeyed_again_and_again(send: Any) -> None:
    """A lane each: for the seven seconds that its client waits, each asks a handful of times."""

    def play(request: Request) -> Play:
        number = next(number for number in range(len(NO_WAITS)) if b'"m%d"' % number in request.body)
        return [refusal(NO_WAITS[number])]

    headers = {"x-stainless-read-timeout": "7.8"}
    async with WireServer(play) as upstream, run_proxy(upstream.url) as proxy:
        got = await asyncio.gather(
            *(send(proxy.address + CHAT, ask(f"m{number}", "x"), headers=headers) for number in range(len(NO_WAITS)))
        )
        assert {answer.status for answer in got} == {429}
        calls = [sum(b'"m%d"' % n in request.body for request in upstream.requests) for n in range(len(NO_WAITS))]
    assert max(calls) <= 5
    assert min(calls) >= 3


async def test_no_error_that_lasts_is_asked_more_than_a_dozen_times(send: Any) -> None:
    """An upstream each, so that none opens another's breaker; backing off, each client is told within its time."""
    headers = {"x-stainless-read-timeout": "4"}
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(WireServer(lambda _, error=error: [error])) for error in ERRORS.values()
        ]
        tables = {f"u{number}": {"url": server.url} for number, server in enumerate(servers)}
        proxy = await stack.enter_async_context(run_proxy(tables))
        await asyncio.gather(
            *(
                send(f"{proxy.address}/upstreams/u{number}{CHAT}", {**ask("m", "x"), "stream": True}, headers=headers)
                for number in range(len(servers))
            )
        )
        calls = {
            name: sum(request.line.startswith("POST") for request in server.requests)
            for name, server in zip(ERRORS, servers, strict=True)
        }
    assert {name: count for name, count in calls.items() if not 1 <= count <= 12} == {}, calls


async def test_a_prompt_that_is_always_refused_leaves_the_others_alone(send: Any) -> None:
    """Moderated, or too large by itself: 429 whenever it comes, while all others are answered."""

    def play(request: Request) -> Play:
        return [refusal("Retry-After: 0") if b"bad" in request.body else chat("fine")]

    async with WireServer(play) as upstream, run_proxy(upstream.url) as proxy:
        bad = asyncio.create_task(send(proxy.address + CHAT, ask("m", "bad")))
        await upstream.wait_for_requests(1)
        for number in range(6):
            good = await asyncio.gather(
                *(send(proxy.address + CHAT, ask("m", f"good {number} {each}")) for each in range(6))
            )
            assert {answer.status for answer in good} == {200}
        (lane,) = proxy.app.lanes()
        bad.cancel()
        await asyncio.wait([bad])
    # One pause of the lane, a tenth of a second, and no other: the rest is the request's own.
    assert lane["episodes"] == 1
    assert lane["longest_wait_seconds"] < 3
    assert sum(b"bad" in request.body for request in upstream.requests) <= 5


async def test_a_pace_that_was_found_is_kept_at_the_next_start_and_no_credential_with_it(
    send: Any, tmp_path: Path
) -> None:
    """Forty pass, one is refused and then passes: the pace is a guess from what passed before."""
    refusals = [refusal("Retry-After: 0.1")]
    headers = {"Authorization": "Bearer sesame-open-sesame"}

    def play(request: Request) -> Play:
        return [refusals.pop() if b"question 40" in request.body and refusals else chat("fine")]

    async with WireServer(play) as upstream:
        async with run_proxy(upstream.url, data_dir=tmp_path) as proxy:
            for number in range(42):
                got = await send(proxy.address + CHAT, ask("m", f"question {number} "), headers=headers)
                assert got.status == 200
            (before,) = proxy.app.lanes()
        saved = (tmp_path / "lanes.json").read_bytes()
        async with run_proxy(upstream.url, data_dir=tmp_path) as proxy:
            assert (await send(proxy.address + CHAT, ask("m", "another"), headers=headers)).status == 200
            assert (await send(proxy.address + CHAT, ask("m", "another"), headers={"X-Api-Key": "x"})).status == 200
            assert (await send(proxy.address + CHAT, ask("m", "more"), headers={"X-Api-Key": "x"})).status == 200
            after = proxy.app.lanes()
    assert before["requests_per_second"] is not None
    assert [lane["requests_per_second"] for lane in after] == [before["requests_per_second"], None]
    assert after[0]["credential"] == before["credential"]
    assert b"sesame" not in saved
