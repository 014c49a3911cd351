"""What a script sees of limits, outages and spent quotas, through real sockets: as little as can be."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from kdproxy.engine import lane as lane_module
from kdproxy.testing.proxy import RunningProxy, run_proxy, run_proxy_process
from kdproxy.testing.teacher import (
    HoldAfter,
    InsufficientQuota,
    Overloaded,
    RateLimited,
    Respond,
    ScriptedTeacher,
    ServerError,
)

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"


def ask(number: int) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": f"Question {number}"}]}


async def until(is_so: Callable[[], bool]) -> None:
    """Poll until a condition holds."""
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0)


async def stats_table(data_dir: Path) -> str:
    """Return what `kdproxy stats` shows of the proxy that runs on a data directory."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kdproxy", "stats", "--quick", "--data-dir", str(data_dir)),
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "COLUMNS": "200"},
    )
    shown, _ = await process.communicate()
    assert process.returncode == 0
    return shown.decode()


async def test_a_storm_of_429s_is_not_seen_by_the_official_client_at_its_defaults() -> None:
    """Twenty a second, sixty-four callers: nobody sees an error, and the teacher is hardly asked in vain."""
    async with (
        ScriptedTeacher(requests_per_minute=20, window_seconds=1.0, latency_seconds=0.02) as teacher,
        run_proxy(teacher) as proxy,
        openai.AsyncOpenAI(base_url=proxy.base_url, api_key="x") as client,
    ):
        answers = await asyncio.gather(*(client.chat.completions.create(**ask(number)) for number in range(100)))
        assert len({answer.choices[0].message.content for answer in answers}) == 100
        # Five go out before anything is known, and a minute's name for a second's window has to be found out.
        assert teacher.count() <= 100 * 1.5


async def test_an_outage_is_held_and_ends(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    teacher.script(*[ServerError(503)] * 10)
    started = time.monotonic()
    got = await asyncio.gather(*(send(proxy.address + CHAT, ask(number)) for number in range(40)))
    assert {answer.status for answer in got} == {200}
    assert teacher.count() == 40 + 10
    assert time.monotonic() - started < 18
    (row,) = proxy.app._lanes.snapshot()
    assert row["breaker_opened"] >= 1
    assert row["breaker"] == "closed"


async def test_a_parked_run_resumes_when_the_quota_is_topped_up(
    teacher: ScriptedTeacher, send: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lane_module, "FIRST_PROBE_SECONDS", 0.2)
    async with run_proxy(teacher, spent_policy="park") as proxy:
        teacher.script(*[InsufficientQuota()] * 8)
        got = asyncio.gather(*(send(proxy.address + CHAT, ask(number)) for number in range(30)))
        await teacher.wait_for_ended(5)
        # Refused requests join the queue again one after the other; one may be the probe.
        await until(lambda: proxy.app._lanes.snapshot()[0]["queued"] >= 29)
        (row,) = proxy.app._lanes.snapshot()
        assert row["stopped"]["policy"] == "park"
        assert {answer.status for answer in await got} == {200}
    assert "parked" in caplog.text
    assert "lane resumed" in caplog.text


async def test_stats_shows_each_lane_with_its_limits_its_queue_and_how_long_that_takes(
    tmp_path: Path, send: Any
) -> None:
    async with (
        ScriptedTeacher(requests_per_minute=30) as teacher,
        run_proxy_process(teacher, tmp_path) as proxy,
    ):
        asked = [
            asyncio.create_task(send(proxy.address + CHAT, {**ask(number), "max_tokens": 5})) for number in range(60)
        ]
        (lane,) = await proxy.lanes_until(lambda lanes: bool(lanes and lanes[0]["limits"]) and lanes[0]["queued"] >= 20)
        assert lane["limits"]["requests_per_minute"]["limit"] == 30
        # Thirty a minute: two seconds for each that waits. Tokens, few as they are, leave more.
        assert lane["drain_seconds"] == pytest.approx(2 * lane["queued"], abs=0.1)
        shown = await stats_table(tmp_path)
        for task in asked:
            task.cancel()
        await asyncio.wait(asked)
    (head,) = [line for line in shown.splitlines() if "queued" in line]
    for column in ("limits", "queued", "in flight", "429s", "longest wait", "drained in", "state"):
        assert column in head
    (row,) = [line for line in shown.splitlines() if "of 30 requests_per_minute" in line]
    assert re.search(r"\d+ s .*open", row)


async def test_a_parked_run_says_so_in_log_stats_and_at_the_end(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any
) -> None:
    teacher.script(*[InsufficientQuota()] * 30)
    async with run_proxy_process(teacher, tmp_path, environment={"KDPROXY_SPENT_POLICY": "park"}) as proxy:
        asked = [asyncio.create_task(send(proxy.address + CHAT, ask(number))) for number in range(30)]
        (lane,) = await proxy.lanes_until(lambda lanes: any(lane["stopped"] for lane in lanes))
        assert (lane["stopped"]["reason"], lane["stopped"]["policy"]) == ("insufficient_quota", "park")
        shown = await stats_table(tmp_path)
        assert "parked: insufficient_quota, next probe in" in shown
        proxy.send(signal.SIGTERM)
        got = await asyncio.gather(*asked)
        assert {(answer.status, answer.headers["x-should-retry"]) for answer in got} == {(503, "true")}
        assert await proxy.wait() == 0
    _, said = await proxy.output()
    assert "error a lane is parked until the quota is back upstream=" in said
    hint = said[said.index("shutting down") :]
    assert "model m, key" in hint
    assert "(insufficient_quota), 30 requests waited." in hint
    assert "run the script again" in hint


async def test_a_wait_longer_than_the_clients_own_gets_a_retry_after(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    teacher.script(RateLimited(retry_after=40))
    started = time.monotonic()
    got = await send(proxy.address + CHAT, ask(1), headers={"x-stainless-read-timeout": "1"})
    assert 0.8 < time.monotonic() - started < 3
    assert (got.status, got.headers["x-should-retry"]) == (429, "true")
    assert 30 <= float(got.headers["retry-after"]) <= 45
    assert 30_000 <= float(got.headers["retry-after-ms"]) <= 45_000
    assert json.loads(got.body)["error"]["code"] == "still_waiting"


async def test_a_client_that_comes_again_in_time_finds_its_place(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """Told to wait two seconds, it is served by the call that was in line for it all along."""
    teacher.script(RateLimited(retry_after=2.5))
    first = await send(proxy.address + CHAT, ask(1), headers={"x-stainless-read-timeout": "1"})
    assert first.status == 429
    again = await send(proxy.address + CHAT, ask(1), headers={"x-stainless-retry-count": "1"})
    assert again.status == 200
    assert "collapsed" in again.cache or "hit" in again.cache
    assert teacher.count() == 2


async def test_sigterm_while_many_queue_answers_each_and_loses_nothing(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any
) -> None:
    teacher.hold()
    # Else all of them would be out within a second: nothing is refused, so it widens.
    async with run_proxy_process(teacher, tmp_path, environment={"KDPROXY_MAX_IN_FLIGHT": "5"}) as proxy:
        asked = [asyncio.create_task(send(proxy.address + CHAT, ask(number))) for number in range(200)]
        await teacher.wait_for_calls(5)
        await proxy.lanes_until(lambda lanes: sum(lane["queued"] for lane in lanes) >= 195)
        proxy.send(signal.SIGTERM)
        # Those in line are told at once, while those under way are still held by the teacher.
        await asyncio.wait(asked, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        teacher.release()
        got = await asyncio.gather(*asked)
        assert await proxy.wait() == 0
    answered = [answer for answer in got if answer.status == 200]
    refused = [answer for answer in got if answer.status != 200]
    assert len(answered) == teacher.count()
    assert len(answered) >= 5
    assert {(answer.status, answer.headers["x-should-retry"]) for answer in refused} == {(503, "true")}
    async with run_proxy_process(teacher, tmp_path) as proxy:
        again = await asyncio.gather(*(send(proxy.address + CHAT, ask(number)) for number in range(200)))
        assert [answer.body for answer in again if "hit" in answer.cache] == [answer.body for answer in answered]


async def test_an_error_dressed_as_an_answer_is_tried_again(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """Anthropic's overload as the first event of a 200 stream."""
    event = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    teacher.script(Respond(200, {"content-type": "text/event-stream"}, event), Overloaded())
    body = {**ask(1), "max_tokens": 9, "stream": True}
    got = await send(proxy.address + "/v1/messages", body, headers={"anthropic-version": "2023-06-01"})
    assert got.status == 200
    assert b"message_stop" in got.body
    assert teacher.count() == 3


async def test_several_keys_share_the_work_and_a_revoked_one_takes_only_itself_out(
    teacher: ScriptedTeacher, send: Any
) -> None:
    environment = {"KDPROXY_TOKEN": "the-proxy-token-0123", "KEY_A": "key-number-one", "KEY_B": "key-number-two"}
    upstreams = {"teacher": {"url": teacher.base_url, "credential_env": ["KEY_A", "KEY_B"]}}
    headers = {"Authorization": "Bearer the-proxy-token-0123"}
    async with run_proxy(upstreams, environment=environment) as proxy:  # type: ignore[arg-type]
        teacher.script(Respond(401, {}, b'{"error":{"message":"Incorrect API key","code":"invalid_api_key"}}'))
        got = await asyncio.gather(*(send(proxy.address + CHAT, ask(number), headers=headers) for number in range(30)))
        assert {answer.status for answer in got} == {200}
        rows = proxy.app._lanes.snapshot()
    assert sorted(row["stopped"] is None for row in rows) == [False, True]
    used = {call.headers["Authorization"] for call in teacher.calls}
    assert used <= {"Bearer key-number-one", "Bearer key-number-two"}


async def test_runs_that_wait_for_the_same_limit_take_turns(teacher: ScriptedTeacher, send: Any) -> None:
    teacher.hold()
    async with run_proxy(teacher, max_in_flight=1) as proxy:
        asked = [asyncio.create_task(send(proxy.address + CHAT, ask(0)))]
        await teacher.wait_for_calls(1)
        for run, numbers in (("long", range(1, 7)), ("short", range(11, 13))):
            for number in numbers:
                waiting = proxy.app.lanes()[0]["queued"]
                asked.append(asyncio.create_task(send(proxy.address + CHAT, ask(number), headers={"Kdproxy-Run": run})))
                await until(lambda so_far=waiting: proxy.app.lanes()[0]["queued"] > so_far)
        teacher.release()
        assert {answer.status for answer in await asyncio.gather(*asked)} == {200}
    order = [int(call.json["messages"][0]["content"].split()[1]) for call in teacher.calls]
    # First come, first served inside a run; the short one does not wait for the end of the long one.
    assert order == [0, 1, 11, 2, 12, 3, 4, 5, 6]


# -- what is not kept -------------------------------------------------------------------------------------------


def uncached(number: int) -> dict[str, Any]:
    """A tool that runs at the provider: the answer depends on more than the question."""
    return {**ask(number), "web_search_options": {}}


async def test_a_model_call_that_is_not_kept_waits_for_its_turn_all_the_same(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    teacher.script(RateLimited(retry_after_ms=400), ServerError(503))
    first = asyncio.create_task(send(proxy.address + CHAT, uncached(1)))
    await teacher.wait_for_ended(1)
    await until(lambda: proxy.app.lanes()[0]["rate_limited"] == 1)
    # One lane for both kinds: what is kept waits as well.
    second = asyncio.create_task(send(proxy.address + CHAT, ask(2)))
    got = await asyncio.gather(first, second)
    assert [answer.status for answer in got] == [200, 200]
    assert "fwd=bypass" in got[0].cache
    assert all(call.started_at - teacher.calls[0].started_at >= 0.4 for call in teacher.calls[1:])
    (lane,) = proxy.app.lanes()
    assert (lane["model"], lane["answered"], lane["in_flight"]) == ("m", 2, 0)
    assert (await send(proxy.address + CHAT, uncached(1))).body != got[0].body


async def test_a_model_call_that_is_not_kept_streams_as_it_comes(
    teacher: ScriptedTeacher, proxy: RunningProxy, http: Any, reading: Any
) -> None:
    gate = asyncio.Event()
    teacher.script(HoldAfter(events=2, gate=gate))
    async with http.post(
        proxy.address + CHAT, json={**uncached(1), "stream": True}, headers={"Authorization": "Bearer x"}
    ) as response:
        read = reading(response)
        await read.until(b"data:")
        assert b"[DONE]" not in read.received
        gate.set()
        assert (await read.rest()).endswith(b"data: [DONE]\n\n")


async def test_a_model_call_that_is_not_kept_ends_with_its_client(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """Finished or not, nobody would have its answer."""
    teacher.hold()
    asked = asyncio.create_task(send(proxy.address + CHAT, uncached(1)))
    await teacher.wait_for_calls(1)
    asked.cancel()
    await until(lambda: proxy.app.lanes()[0]["in_flight"] == 0)
    teacher.release()


async def test_what_is_no_model_call_passes_with_its_429_as_it_is(before_mirror: Any, mirror: Any, send: Any) -> None:
    mirror.answer = (
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nX-RateLimit-Remaining-Requests: 0\r\n"
        b"Content-Length: 4\r\n\r\nslow"
    )
    got = await send(f"{before_mirror.address}/v1/files", data=b"x")
    assert (got.status, got.body, got.headers["retry-after"]) == (429, b"slow", "7")
    assert got.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(mirror.requests) == 1
    assert before_mirror.app.lanes() == []
