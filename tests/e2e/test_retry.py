"""A provider's bad moments: a script sees nothing of them where waiting helps, and the truth at once where not."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from kdproxy.engine import fetch
from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import (
    InsufficientQuota,
    Overloaded,
    RateLimited,
    Reset,
    Respond,
    ScriptedTeacher,
    ServerError,
)
from tests.wire.asks import ASK, CHAT

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    "step",
    [
        *(RateLimited(retry_after_ms=1), RateLimited(retry_after=0.01), RateLimited(retry_after=0), Overloaded()),
        *(ServerError(status) for status in (408, 409, 500, 502, 503, 504, 529)),
        Reset(),
    ],
    ids=repr,
)
async def test_one_bad_moment_is_not_seen(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, step: Any) -> None:
    teacher.script(step)
    got = await send(proxy.address + CHAT, ASK)
    assert (got.status, teacher.count()) == (200, 2)
    assert (await send(proxy.address + CHAT, ASK)).body == got.body


@pytest.mark.parametrize(
    "step",
    [
        RateLimited(retry_after_ms=400, retry_after=9),
        RateLimited(retry_after=0.4),
        RateLimited(headers={"retry-after-ms": "400"}),
        ServerError(503, {"retry-after": "0.4"}),
    ],
    ids=repr,
)
async def test_the_asked_wait_is_a_floor(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, step: Any) -> None:
    teacher.script(step)
    got = await send(proxy.address + CHAT, ASK)
    assert got.status == 200
    assert teacher.calls[1].started_at - teacher.calls[0].started_at >= 0.4


async def test_a_date_is_a_wait_too(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    at = datetime.now(UTC) + timedelta(seconds=2)
    teacher.script(RateLimited(retry_after=format_datetime(at, usegmt=True)))
    got = await send(proxy.address + CHAT, ASK)
    assert got.status == 200
    # A date has whole seconds.
    assert time.time() >= int(at.timestamp())


async def lane_paused(proxy: RunningProxy) -> None:
    """Wait until the first lane has read what the teacher said."""
    async with asyncio.timeout(10):
        while not proxy.app.lanes()[0]["paused_seconds"]:
            await asyncio.sleep(0)


async def test_one_429_pauses_all_calls_of_its_lane(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    teacher.script(RateLimited(retry_after_ms=400))
    await_first = asyncio.create_task(send(proxy.address + CHAT, ASK))
    await teacher.wait_for_ended(1)
    await lane_paused(proxy)
    rest = await asyncio.gather(*(send(proxy.address + CHAT, {**ASK, "seed": number}) for number in range(3)))
    assert {answer.status for answer in (await await_first, *rest)} == {200}
    assert all(call.started_at - teacher.calls[0].started_at >= 0.4 for call in teacher.calls[1:])


async def test_a_spent_quota_is_reported_at_once(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    teacher.script(InsufficientQuota())
    started = time.monotonic()
    got = await send(proxy.address + CHAT, ASK)
    assert time.monotonic() - started < 2
    assert got.status == 429
    assert b"You exceeded your current quota." in got.body
    assert got.headers["x-should-retry"] == "false"
    assert teacher.count() == 1
    assert (await send(proxy.address + CHAT, ASK)).status == 200


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_what_waiting_does_not_fix_is_not_tried_again(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, status: int
) -> None:
    teacher.script(Respond(status, {"x-own": "1"}, b'{"error":{"message":"no"}}'))
    got = await send(proxy.address + CHAT, ASK)
    assert (got.status, got.body, got.headers["x-own"]) == (status, b'{"error":{"message":"no"}}', "1")
    assert teacher.count() == 1


async def test_an_error_that_quotes_a_long_request_is_reported_as_it_is(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """It is the request's fault, so neither tried again nor taken for an outage."""
    body = b'{"error":{"message":"not allowed: %s"}}' % (b"x" * (3 << 20))
    teacher.script(Respond(422, {}, body))
    got = await send(proxy.address + CHAT, ASK)
    assert (got.status, got.body, teacher.count()) == (422, body, 1)
    assert proxy.app.lanes()[0]["retry_budget"] == 500


async def test_an_error_stream_that_stays_open_is_not_waited_for(send: Any) -> None:
    """Some gateways send the error as first event of a 200 and then nothing, not even the end."""
    left_open: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        if left_open:
            writer.write(b'data: {"choices":[{"index":0,"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
            writer.close()
        else:
            writer.write(b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n')
            left_open.append(writer)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, run_proxy(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as proxy:
        async with asyncio.timeout(10):
            got = await send(proxy.address + CHAT, {**ASK, "stream": True})
        assert b"[DONE]" in got.body
        left_open[0].close()


async def test_an_error_without_end_is_asked_for_once(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "ERROR_BODY_BYTES", 1_000)
    teacher.script(Respond(500, {}, b'{"error":{"message":"no"}}' + b" " * 2_000))
    got = await send(proxy.address + CHAT, ASK)
    assert (got.status, teacher.count()) == (502, 1)
    assert b"answer_too_large" in got.body
    assert (await send(proxy.address + CHAT, ASK)).status == 200


async def test_the_provider_may_say_that_a_retry_is_useless(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    teacher.script(ServerError(500, {"x-should-retry": "false"}))
    got = await send(proxy.address + CHAT, ASK)
    assert (got.status, got.headers.getall("x-should-retry"), teacher.count()) == (500, ["false"], 1)


@pytest.mark.parametrize(
    ("step", "status"), [(RateLimited(retry_after=60), 429), (ServerError(503), 503), (Reset(), 503)], ids=repr
)
async def test_giving_up_says_when_to_come_again(teacher: ScriptedTeacher, send: Any, step: Any, status: int) -> None:
    async with run_proxy(teacher, retry_seconds=0.5, retry_attempts=2, patience_seconds=1) as proxy:
        teacher.script(step, step)
        got = await send(proxy.address + CHAT, ASK)
    assert got.status == status
    assert got.headers["x-should-retry"] == "true"
    assert 1 <= int(got.headers["retry-after"]) <= 120
    assert 1 <= float(got.headers["retry-after-ms"]) <= 120_000
    if status == 429:
        assert float(got.headers["retry-after"]) >= 59


async def test_retries_are_bounded(teacher: ScriptedTeacher, send: Any) -> None:
    async with run_proxy(teacher, retry_attempts=3) as proxy:
        teacher.script(*[ServerError(500)] * 10)
        got = await send(proxy.address + CHAT, ASK)
        assert got.status == 500
        assert b"The server had an error" in got.body
        assert teacher.count() == 3


async def test_many_callers_get_through_a_narrow_limit(send: Any) -> None:
    """Ten a window, forty asked at once: all are answered, and the teacher is asked little more than that."""
    async with ScriptedTeacher(requests_per_minute=10, window_seconds=0.5) as teacher, run_proxy(teacher) as proxy:
        got = await asyncio.gather(*(send(proxy.address + CHAT, {**ASK, "seed": number}) for number in range(40)))
        assert {answer.status for answer in got} == {200}
        assert len({answer.body for answer in got}) == 40
