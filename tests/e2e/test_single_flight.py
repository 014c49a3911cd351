"""Equal requests share one call; the call belongs to nobody: clients come and go, it is finished and stored."""

import asyncio
import re
from typing import Any

import pytest

from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import Answer, CutStream, HoldAfter, RateLimited, Respond, ScriptedTeacher, ServerError
from tests.wire.asks import ASK, CHAT

pytestmark = pytest.mark.asyncio

STREAM: dict[str, Any] = {**ASK, "stream": True}
USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}
HEADERS = {"Authorization": "Bearer x"}


async def until(condition: Any) -> None:
    """Wait for what no event tells."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def flights(proxy: RunningProxy) -> Any:
    return proxy.app._flights


async def abandon(task: "asyncio.Task[Any]") -> None:
    """Cancelling an aiohttp request closes its connection, as a killed script does."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("body", [ASK, STREAM, {**STREAM, **USAGE}], ids=["json", "sse", "sse with usage"])
async def test_fifty_equal_requests_are_one_call(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, parse_cache_status: Any, body: Any
) -> None:
    teacher.hold()
    asking = [asyncio.create_task(send(proxy.address + CHAT, body)) for _ in range(50)]
    await until(lambda: any(flight.waiters == 50 for flight in flights(proxy)._tasks))
    teacher.release()
    got = await asyncio.gather(*asking)
    assert len({answer.body for answer in got}) == 1
    assert teacher.count() == 1
    collapsed = [parse_cache_status(answer.cache).get("collapsed", False) for answer in got]
    assert (collapsed.count(True), collapsed.count(False)) == (49, 1)
    assert (await send(proxy.address + CHAT, body)).body == got[0].body


async def test_different_questions_are_not_one_call(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    got = await asyncio.gather(*(send(proxy.address + CHAT, {**ASK, "seed": number}) for number in range(30)))
    assert len({answer.body for answer in got}) == 30
    assert teacher.count() == 30


async def test_a_late_joiner_gets_the_backlog_at_once(teacher: ScriptedTeacher, proxy: RunningProxy, http: Any) -> None:
    gate = asyncio.Event()
    teacher.script(HoldAfter(events=4, gate=gate))
    async with http.post(proxy.address + CHAT, json=STREAM, headers=HEADERS) as leader:
        head = b""
        while head.count(b"\n\n") < 4:
            head += await leader.content.readany()
        async with http.post(proxy.address + CHAT, json=STREAM, headers=HEADERS) as joiner:
            assert "collapsed" in joiner.headers["Cache-Status"]
            backlog = b""
            while len(backlog) < len(head):
                backlog += await joiner.content.readany()
            assert backlog == head
            assert teacher.ended == 0
            gate.set()
            assert backlog + await joiner.content.read() == head + await leader.content.read()
    assert teacher.count() == 1


async def test_streams_with_and_without_usage_share_a_call(
    teacher: ScriptedTeacher, proxy: RunningProxy, http: Any, send: Any
) -> None:
    """`stream_options` is no part of the question: the leader's bytes are stored, others get them fitted, live."""
    gate = asyncio.Event()
    teacher.script(HoldAfter(events=3, gate=gate))
    async with http.post(proxy.address + CHAT, json={**STREAM, **USAGE}, headers=HEADERS) as leader:
        first = await leader.content.readany()
        async with http.post(proxy.address + CHAT, json=STREAM, headers=HEADERS) as joiner:
            live = await joiner.content.readany()
            assert teacher.ended == 0
            gate.set()
            plain = live + await joiner.content.read()
        full = first + await leader.content.read()
    assert teacher.count() == 1
    assert b"total_tokens" in full
    assert b"usage" not in plain
    kept = [event for event in full.split(b"\n\n") if b"total_tokens" not in event]
    assert plain.split(b"\n\n") == [re.sub(rb',?"usage":null', b"", event) for event in kept]
    assert (await send(proxy.address + CHAT, {**STREAM, **USAGE})).body == full
    assert (await send(proxy.address + CHAT, STREAM)).body == plain
    assert teacher.count() == 1


async def test_who_asks_for_usage_does_not_join_a_call_without_it(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """None is invented, and none is left out silently: it buys its own."""
    teacher.hold()
    leader = asyncio.create_task(send(proxy.address + CHAT, STREAM))
    await teacher.wait_for_calls(1)
    other = asyncio.create_task(send(proxy.address + CHAT, {**STREAM, **USAGE}))
    await teacher.wait_for_calls(2)
    teacher.release()
    assert b'"usage":{' in (await other).body.replace(b" ", b"")
    assert b'"usage":{' not in (await leader).body.replace(b" ", b"")
    assert teacher.count() == 2


async def test_the_two_forms_are_two_calls(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    teacher.hold()
    asking = [asyncio.create_task(send(proxy.address + CHAT, body)) for body in (ASK, STREAM, ASK, STREAM)]
    await teacher.wait_for_calls(2)
    await until(lambda: sum(flight.waiters for flight in flights(proxy)._tasks) == 4)
    teacher.release()
    got = await asyncio.gather(*asking)
    assert got[0].body == got[2].body
    assert got[1].body == got[3].body
    assert teacher.count() == 2


@pytest.mark.parametrize("body", [ASK, STREAM], ids=["json", "sse"])
async def test_a_follower_survives_the_leaders_disconnect(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, body: Any
) -> None:
    teacher.hold()
    leader = asyncio.create_task(send(proxy.address + CHAT, body))
    await teacher.wait_for_calls(1)
    follower = asyncio.create_task(send(proxy.address + CHAT, body))
    await until(lambda: any(flight.waiters == 2 for flight in flights(proxy)._tasks))
    await abandon(leader)
    await until(lambda: any(flight.waiters == 1 for flight in flights(proxy)._tasks))
    teacher.release()
    got = await follower
    assert got.status == 200
    assert (await send(proxy.address + CHAT, body)).body == got.body
    assert teacher.count() == 1


@pytest.mark.parametrize("body", [ASK, STREAM], ids=["json", "sse"])
async def test_a_call_that_everybody_left_is_finished_and_stored(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, body: Any
) -> None:
    teacher.hold()
    asking = [asyncio.create_task(send(proxy.address + CHAT, body)) for _ in range(3)]
    await teacher.wait_for_calls(1)
    await until(lambda: any(flight.waiters == 3 for flight in flights(proxy)._tasks))
    for task in asking:
        await abandon(task)
    await until(lambda: all(flight.waiters == 0 for flight in flights(proxy)._tasks))
    teacher.release()
    await until(lambda: len(flights(proxy)) == 0)
    got = await send(proxy.address + CHAT, body)
    assert "; hit" in got.cache
    assert teacher.count() == 1
    assert teacher.calls[0].outcome == "answered"


async def test_a_stream_left_in_its_middle_is_finished_and_stored(
    teacher: ScriptedTeacher, proxy: RunningProxy, http: Any, send: Any
) -> None:
    gate = asyncio.Event()
    teacher.script(HoldAfter(events=3, gate=gate))
    async with http.post(proxy.address + CHAT, json=STREAM, headers=HEADERS) as response:
        await response.content.readany()
        response.close()
    await until(lambda: all(flight.waiters == 0 for flight in flights(proxy)._tasks))
    assert len(flights(proxy)) == 1
    gate.set()
    await until(lambda: len(flights(proxy)) == 0)
    got = await send(proxy.address + CHAT, STREAM)
    assert "; hit" in got.cache
    assert got.body.endswith(b"data: [DONE]\n\n")
    assert teacher.count() == 1


async def test_asking_again_joins_what_is_under_way(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    teacher.hold()
    first = asyncio.create_task(send(proxy.address + CHAT, ASK))
    await teacher.wait_for_calls(1)
    await abandon(first)
    await until(lambda: all(flight.waiters == 0 for flight in flights(proxy)._tasks))
    again = asyncio.create_task(send(proxy.address + CHAT, ASK, headers={"x-stainless-retry-count": "1"}))
    await until(lambda: any(flight.waiters == 1 for flight in flights(proxy)._tasks))
    teacher.release()
    assert "collapsed" in (await again).cache
    assert teacher.count() == 1


@pytest.mark.parametrize("mode", ["refresh", "record"])
async def test_a_retry_of_who_wants_a_new_answer_gets_the_one_that_was_bought_for_it(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, mode: str
) -> None:
    """Its client left, the answer was finished and stored: it must not be paid for twice."""
    headers = {"kdproxy-mode": mode}
    if mode == "refresh":
        await send(proxy.address + CHAT, ASK)
    before = teacher.count()
    teacher.hold()
    first = asyncio.create_task(send(proxy.address + CHAT, ASK, headers=headers))
    await teacher.wait_for_calls(before + 1)
    await abandon(first)
    await until(lambda: all(flight.waiters == 0 for flight in flights(proxy)._tasks))
    teacher.release()
    await until(lambda: len(flights(proxy)) == 0)
    again = await send(proxy.address + CHAT, ASK, headers={**headers, "x-stainless-retry-count": "1"})
    assert "; hit" in again.cache
    assert teacher.count() == before + 1
    # A first ask is no retry: it wants a new answer, and buys it.
    new = await send(proxy.address + CHAT, ASK, headers={**headers, "x-stainless-retry-count": "0"})
    assert "; hit" not in new.cache
    assert teacher.count() == before + 2


async def test_a_retry_of_who_bypasses_joins_the_call_that_it_left_and_no_other(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    headers = {"kdproxy-mode": "bypass"}
    retry = {**headers, "x-stainless-retry-count": "1"}
    teacher.hold()
    first = asyncio.create_task(send(proxy.address + CHAT, ASK, headers=headers))
    await teacher.wait_for_calls(1)
    beside = asyncio.create_task(send(proxy.address + CHAT, {**ASK, "seed": 1}, headers=headers))
    await teacher.wait_for_calls(2)
    await abandon(first)
    await until(lambda: any(flight.has_lost for flight in flights(proxy)._tasks))
    again = asyncio.create_task(send(proxy.address + CHAT, ASK, headers=retry))
    await until(lambda: any(flight.has_lost and flight.waiters for flight in flights(proxy)._tasks))
    other = asyncio.create_task(send(proxy.address + CHAT, {**ASK, "seed": 1}, headers=retry))
    await teacher.wait_for_calls(3)
    teacher.release()
    assert "collapsed" in (await again).cache
    assert len({got.body for got in await asyncio.gather(again, beside, other)}) == 3


async def test_a_detached_call_ends_at_its_limit(teacher: ScriptedTeacher, send: Any) -> None:
    async with run_proxy(teacher, detached_max_seconds=0.1) as proxy:
        teacher.hold()
        first = asyncio.create_task(send(proxy.address + CHAT, ASK))
        await teacher.wait_for_calls(1)
        await abandon(first)
        await until(lambda: len(flights(proxy)) == 0)
        teacher.release()
        assert "fwd=miss" in (await send(proxy.address + CHAT, ASK)).cache
    assert teacher.count() == 2


async def test_who_comes_back_stops_the_clock(teacher: ScriptedTeacher, send: Any) -> None:
    async with run_proxy(teacher, detached_max_seconds=0.3) as proxy:
        teacher.hold()
        first = asyncio.create_task(send(proxy.address + CHAT, ASK))
        await teacher.wait_for_calls(1)
        await abandon(first)
        await until(lambda: flights(proxy)._timers)
        again = asyncio.create_task(send(proxy.address + CHAT, ASK))
        await until(lambda: not flights(proxy)._timers)
        await asyncio.sleep(0.4)  # longer than the limit: the clock must stand still
        teacher.release()
        assert (await again).status == 200
    assert teacher.count() == 1


async def test_a_waiting_request_that_nobody_waits_for_is_never_sent(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """A rate limit makes the lane wait; who leaves meanwhile has bought nothing."""
    teacher.script(RateLimited(retry_after_ms=400))
    first = asyncio.create_task(send(proxy.address + CHAT, ASK))
    await teacher.wait_for_ended(1)
    await until(lambda: any(flight.phase.name == "WAITING" for flight in flights(proxy)._tasks))
    await abandon(first)
    await until(lambda: len(flights(proxy)) == 0)
    await send(proxy.address + CHAT, {**ASK, "seed": 1})  # goes out when the lane opens again
    assert [call.json.get("seed") for call in teacher.calls] == [None, 1]


async def test_a_call_left_under_way_is_not_sent_again(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """The client left while its call was at the provider, which then says 429: from there on nobody waits for it."""
    teacher.hold()
    teacher.script(RateLimited(retry_after_ms=30), ServerError(500))
    for seed in (1, 2):
        first = asyncio.create_task(send(proxy.address + CHAT, {**ASK, "seed": seed}))
        await teacher.wait_for_calls(seed)
        await abandon(first)
    await until(lambda: all(flight.waiters == 0 for flight in flights(proxy)._tasks))
    teacher.release()
    await until(lambda: len(flights(proxy)) == 0)
    assert teacher.count() == 2


@pytest.mark.parametrize("status", [400, 401, 404, 422])
async def test_a_failing_leaders_error_reaches_all_and_is_not_kept(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, status: int
) -> None:
    teacher.hold()
    teacher.script(Respond(status, {}, b'{"error":{"message":"no"}}'))
    asking = [asyncio.create_task(send(proxy.address + CHAT, ASK)) for _ in range(10)]
    await until(lambda: any(flight.waiters == 10 for flight in flights(proxy)._tasks))
    teacher.release()
    got = await asyncio.gather(*asking)
    assert {(answer.status, answer.body) for answer in got} == {(status, b'{"error":{"message":"no"}}')}
    assert (await send(proxy.address + CHAT, ASK)).status == 200
    assert teacher.count() == 2


async def test_a_cut_stream_is_cut_for_all_and_bought_again(
    teacher: ScriptedTeacher, proxy: RunningProxy, http: Any, send: Any
) -> None:
    teacher.hold()
    teacher.script(CutStream(3), Answer())

    async def read() -> bytes:
        received = b""
        async with http.post(proxy.address + CHAT, json=STREAM, headers=HEADERS) as response:
            try:
                async for chunk in response.content.iter_any():
                    received += chunk
            except Exception:
                return received
        pytest.fail("a cut stream ended cleanly")

    asking = [asyncio.create_task(read()) for _ in range(5)]
    await until(lambda: any(flight.waiters == 5 for flight in flights(proxy)._tasks))
    teacher.release()
    assert {answer.count(b"\n\n") for answer in await asyncio.gather(*asking)} == {3}
    assert (await send(proxy.address + CHAT, STREAM)).body.endswith(b"[DONE]\n\n")
    assert teacher.count() == 2


async def test_who_bypasses_or_refreshes_gets_a_call_of_its_own(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    teacher.hold()
    asking = [
        asyncio.create_task(send(proxy.address + CHAT, ASK, headers=headers))
        for headers in ({}, {"Kdproxy-Mode": "bypass"}, {"Kdproxy-Mode": "bypass"}, {"Kdproxy-Mode": "refresh"}, {})
    ]
    await teacher.wait_for_calls(4)
    await until(lambda: sum(flight.waiters for flight in flights(proxy)._tasks) == 5)
    teacher.release()
    got = await asyncio.gather(*asking)
    assert got[0].body == got[4].body
    assert len({answer.body for answer in got}) == 4


async def test_a_client_that_goes_away_mid_upload_buys_nothing(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    host, port = proxy.address.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{")
    await writer.drain()
    writer.close()
    await send(proxy.address + CHAT, ASK)
    assert teacher.count() == 1
