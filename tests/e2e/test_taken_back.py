"""Calls that a free server cannot answer in time are taken back and sent again, over raw sockets."""

import asyncio
from typing import Any

import pytest

from kdproxy.testing.proxy import run_proxy
from tests.wire import Request, WireServer, chat

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
CALLERS = 90
SLOW = 30
"""So many answers come slowly: enough to show that ninety are too many. The rest comes fast: a test is no benchmark."""
SLOW_SECONDS, FAST_SECONDS = 0.05, 0.01
PATIENCE = {"x-stainless-read-timeout": "5"}


class OneSlot:
    """Answers one call after another, and drops those whose caller has left, as an inference server does."""

    def __init__(self) -> None:
        self.slot = asyncio.Lock()
        self.left: list[bytes] = []
        self.answered: list[bytes] = []

    def __call__(self, request: Request) -> list[Any]:
        return [self.serve]

    async def serve(self, connection: Any, request: Request) -> None:
        async with self.slot:
            if connection.reader.at_eof():
                self.left.append(request.body)
                return
            await asyncio.sleep(SLOW_SECONDS if len(self.answered) < SLOW else FAST_SECONDS)
            self.answered.append(request.body)
        await connection.send(chat())


async def ask_all(send: Any, *, is_billed: bool) -> tuple[OneSlot, Any, list[int]]:
    server = OneSlot()
    async with WireServer(server) as upstream:
        tables = {"own": {"url": upstream.url, "billed": is_billed, "provider": "openai"}}
        async with run_proxy(tables) as proxy:
            # The width opens with time where nothing is refused; here all find it open.
            for road in (await _first(send, proxy)).values():
                for lane in road.lanes:
                    lane.pace.concurrency.open()
            bodies = [{"model": "m", "messages": [{"role": "user", "content": str(n)}]} for n in range(CALLERS)]
            got = await asyncio.gather(*(send(proxy.address + CHAT, body, headers=PATIENCE) for body in bodies))
            return server, proxy.app.ledger.as_dict()["calls"], [answer.status for answer in got]


async def _first(send: Any, proxy: Any) -> Any:
    await send(proxy.address + CHAT, {"model": "m", "messages": []}, headers=PATIENCE)
    return proxy.app._lanes._queues


async def test_what_a_free_server_cannot_answer_in_time_is_taken_back_and_everybody_is_answered(send: Any) -> None:
    server, calls, statuses = await ask_all(send, is_billed=False)
    assert statuses == [200] * CALLERS
    assert len(server.left) > 5
    # Each is answered once, and what was taken back is no failure of its question.
    assert len(server.answered) == len(set(server.answered)) == CALLERS + 1
    assert set(server.left) <= set(server.answered)
    assert (calls["answered"], calls["maybe_billed"]) == (CALLERS + 1, 0)
    assert calls["abandoned"] == len(server.left)


async def test_a_call_that_may_be_billed_is_never_taken_back(send: Any) -> None:
    server, calls, statuses = await ask_all(send, is_billed=True)
    assert statuses == [200] * CALLERS
    assert server.left == []
    assert (calls["answered"], calls["abandoned"]) == (CALLERS + 1, 0)
