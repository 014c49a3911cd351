"""A recording without usage never serves who asks for it, and no call is shared across that difference."""

import asyncio
from typing import Any

import pytest

from kdproxy.testing.proxy import run_proxy
from tests.wire import (
    WireServer,
    sse,
    sse_head,
)
from tests.wire.answers import DONE, LAST, USAGE, stop, token
from tests.wire.asks import CHAT, STREAM, WITH_USAGE

pytestmark = pytest.mark.asyncio


async def test_a_recording_without_usage_does_not_serve_who_asks_for_it(send: Any) -> None:
    def play(request: Any) -> list[Any]:
        wants = b"include_usage" in request.body
        return [sse_head(), sse(token(), stop(), *([USAGE] if wants else []), DONE), LAST]

    async with WireServer(play) as upstream, run_proxy(upstream.url) as proxy:
        url = proxy.address + CHAT
        await send(url, STREAM)
        bought = await send(url, WITH_USAGE)
        assert "fwd=miss" in bought.cache
        assert b'"completion_tokens"' in bought.body
        again = await send(url, WITH_USAGE)
        assert "; hit" in again.cache
        assert again.body == bought.body
        without = await send(url, STREAM)
        assert "; hit" in without.cache
        assert b'"completion_tokens"' not in without.body
        assert len(upstream.requests) == 2


async def test_who_wants_usage_does_not_join_a_call_without_it(send: Any) -> None:
    gate = asyncio.Event()

    def play(request: Any) -> list[Any]:
        wants = b"include_usage" in request.body
        return [sse_head(), sse(token()), gate, sse(stop(), *([USAGE] if wants else []), DONE), LAST]

    async with WireServer(play) as upstream, run_proxy(upstream.url) as proxy:
        url = proxy.address + CHAT
        plain = asyncio.create_task(send(url, STREAM))
        await upstream.wait_for_requests(1)
        wanting = asyncio.create_task(send(url, WITH_USAGE))
        await upstream.wait_for_requests(2)
        other = asyncio.create_task(send(url, STREAM))
        await asyncio.sleep(0)
        gate.set()
        assert b'"completion_tokens"' in (await wanting).body
        assert b'"completion_tokens"' not in (await plain).body + (await other).body
        assert len(upstream.requests) == 2
