"""Each step of a script does on the wire what it says."""

import asyncio
import errno
import gzip
import json
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import aiohttp
import pytest

from kdproxy.testing.teacher import (
    Answer,
    CutBody,
    CutStream,
    EndTooEarly,
    EndWithoutTerminator,
    ErrorEvent,
    ErrorIn200,
    Gzip,
    Hang,
    HoldAfter,
    HtmlPage,
    InsufficientQuota,
    KeepAlive,
    Outcome,
    Overloaded,
    RateLimited,
    Redirect,
    Reset,
    Respond,
    ScriptedTeacher,
    ServerError,
    Slow,
    Step,
)

pytestmark = pytest.mark.asyncio

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}
STREAM = ASK | {"stream": True}
DONE = b"data: [DONE]\n\n"


async def ask(
    teacher: ScriptedTeacher, http: aiohttp.ClientSession, body: dict[str, Any] = ASK
) -> tuple[int, Any, bytes]:
    url = f"{teacher.base_url}/chat/completions"
    async with http.post(url, json=body, allow_redirects=False) as answer:
        return answer.status, answer.headers, await answer.read()


async def test_steps_are_played_once_each_in_order(teacher: ScriptedTeacher, http: aiohttp.ClientSession) -> None:
    teacher.script(ServerError(), Answer(), ServerError(502))
    statuses = [(await ask(teacher, http))[0] for _ in range(4)]
    assert statuses == [500, 200, 502, 200]
    assert teacher.unplayed == 0


async def test_lookups_do_not_use_up_the_script(teacher: ScriptedTeacher, http: aiohttp.ClientSession) -> None:
    teacher.script(ServerError())
    async with http.get(f"{teacher.base_url}/models") as answer:
        assert answer.status == 200
    assert (await ask(teacher, http))[0] == 500


async def test_respond_sends_exactly_this(teacher: ScriptedTeacher, http: aiohttp.ClientSession) -> None:
    teacher.script(Respond(418, {"Content-Type": "text/plain", "X-Pot": "short"}, b"stout"))
    status, headers, body = await ask(teacher, http)
    assert (status, headers["X-Pot"], headers["Content-Type"], body) == (418, "short", "text/plain", b"stout")


DATE = format_datetime(datetime(2030, 1, 1, tzinfo=UTC), usegmt=True)


@pytest.mark.parametrize(
    ("step", "status", "code", "waits"),
    [
        (RateLimited(retry_after=2), 429, "rate_limit_exceeded", {"retry-after": "2"}),
        (RateLimited(retry_after_ms=250), 429, "rate_limit_exceeded", {"retry-after-ms": "250"}),
        (RateLimited(retry_after=DATE), 429, "rate_limit_exceeded", {"retry-after": DATE}),
        (RateLimited(headers={"x-ms-retry-after-ms": "9"}), 429, "rate_limit_exceeded", {"x-ms-retry-after-ms": "9"}),
        (InsufficientQuota(), 429, "insufficient_quota", {}),
        (Overloaded(), 503, "server_is_overloaded", {}),
        (ServerError(504), 504, None, {}),
        (ErrorIn200(), 200, None, {}),
    ],
)
async def test_refusals_have_openais_shape(
    teacher: ScriptedTeacher,
    http: aiohttp.ClientSession,
    step: Step,
    status: int,
    code: str | None,
    waits: dict[str, str],
) -> None:
    teacher.script(step)
    seen, headers, body = await ask(teacher, http)
    assert seen == status
    assert json.loads(body)["error"]["code"] == code
    assert {name: headers[name] for name in waits} == waits
    assert "x-ratelimit-remaining-requests" in headers


async def test_reset_comes_before_any_byte(teacher: ScriptedTeacher, http: aiohttp.ClientSession) -> None:
    teacher.script(Reset())
    with pytest.raises(aiohttp.ClientOSError) as caught:
        await ask(teacher, http)
    assert caught.value.errno == errno.ECONNRESET
    assert teacher.calls[0].outcome is Outcome.BROKEN


@pytest.mark.parametrize("body", [ASK, STREAM])
async def test_cut_body_sends_less_than_it_promised(
    teacher: ScriptedTeacher, http: aiohttp.ClientSession, body: dict[str, Any]
) -> None:
    teacher.script(CutBody(at_bytes=100))
    async with http.post(f"{teacher.base_url}/chat/completions", json=body) as answer:
        assert int(answer.headers["Content-Length"]) > 100
        assert len(await answer.content.readexactly(100)) == 100
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_cut_stream_sends_its_events_and_no_end(teacher: ScriptedTeacher, http: aiohttp.ClientSession) -> None:
    teacher.script(CutStream(after_events=3))
    async with http.post(f"{teacher.base_url}/chat/completions", json=STREAM) as answer:
        for _ in range(3):
            assert (await answer.content.readuntil(b"\n\n")).startswith(b"data: {")
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.read()


async def test_two_clean_ends_that_are_not_complete(teacher: ScriptedTeacher, http: aiohttp.ClientSession) -> None:
    teacher.script(EndWithoutTerminator(), EndTooEarly())
    _, _, unterminated = await ask(teacher, http, STREAM)
    _, _, early = await ask(teacher, http, STREAM)
    assert b'"finish_reason":"stop"' in unterminated
    assert DONE not in unterminated
    assert b'"finish_reason":"stop"' not in early


async def test_error_event_stands_inside_a_200(teacher: ScriptedTeacher, http: aiohttp.ClientSession) -> None:
    teacher.script(ErrorEvent(after_events=2))
    status, _, body = await ask(teacher, http, STREAM)
    events = body.split(b"\n\n")
    assert status == 200
    assert events[2].startswith(b'data: {"error":')
    assert events[3] == b""


async def test_html_page_and_redirect(teacher: ScriptedTeacher, http: aiohttp.ClientSession) -> None:
    teacher.script(HtmlPage(), Redirect("https://elsewhere.example/"))
    status, headers, body = await ask(teacher, http)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert body.startswith(b"<!doctype html>")
    status, headers, _ = await ask(teacher, http)
    assert (status, headers["Location"]) == (307, "https://elsewhere.example/")


async def test_keep_alives_come_before_the_answer(teacher: ScriptedTeacher, http: aiohttp.ClientSession) -> None:
    teacher.script(KeepAlive(2), KeepAlive(2))
    _, _, streamed = await ask(teacher, http, STREAM)
    _, _, whole = await ask(teacher, http)
    assert streamed.startswith(b": keep-alive\n\n" * 2 + b"data: ")
    assert streamed.endswith(DONE)
    assert whole.startswith(b"\n\n{")
    assert json.loads(whole)["object"] == "chat.completion"


async def test_gzip_is_sent_unasked(teacher: ScriptedTeacher) -> None:
    headers = {"Authorization": "Bearer test", "Accept-Encoding": "identity"}
    teacher.script(Gzip(), Gzip())
    async with aiohttp.ClientSession(headers=headers, auto_decompress=False) as http:
        for body, start in ((ASK, b"{"), (STREAM, b"data: ")):
            _, head, data = await ask(teacher, http, body)
            assert head["Content-Encoding"] == "gzip"
            assert gzip.decompress(data).startswith(start)


async def test_slow_spreads_the_events(teacher: ScriptedTeacher, http: aiohttp.ClientSession) -> None:
    teacher.script(Slow(0.005))
    started = asyncio.get_running_loop().time()
    _, _, body = await ask(teacher, http, STREAM)
    events = body.count(b"\n\n")
    assert asyncio.get_running_loop().time() - started >= 0.005 * events


async def test_hold_after_waits_inside_the_stream(teacher: ScriptedTeacher, http: aiohttp.ClientSession) -> None:
    gate = asyncio.Event()
    teacher.script(HoldAfter(events=2, gate=gate))
    async with http.post(f"{teacher.base_url}/chat/completions", json=STREAM) as answer:
        await answer.content.readuntil(b"\n\n")
        await answer.content.readuntil(b"\n\n")
        assert teacher.calls[0].outcome is None
        gate.set()
        assert (await answer.content.read()).endswith(DONE)


async def test_hold_after_no_events_sends_the_head(teacher: ScriptedTeacher, http: aiohttp.ClientSession) -> None:
    gate = asyncio.Event()
    teacher.script(HoldAfter(events=0, gate=gate))
    async with http.post(f"{teacher.base_url}/chat/completions", json=ASK) as answer:
        assert answer.status == 200
        gate.set()
        assert (await answer.json())["object"] == "chat.completion"


async def test_hang_lasts_until_released(teacher: ScriptedTeacher, http: aiohttp.ClientSession) -> None:
    teacher.script(Hang())
    hanging = asyncio.create_task(ask(teacher, http))
    await teacher.wait_for_calls(1)
    assert (await ask(teacher, http))[0] == 200
    assert not hanging.done()
    teacher.release()
    assert (await hanging)[0] == 200


async def test_a_client_that_left_is_noticed(teacher: ScriptedTeacher) -> None:
    gate = asyncio.Event()
    teacher.script(HoldAfter(events=1, gate=gate))
    reader, writer = await asyncio.open_connection("127.0.0.1", teacher.port)
    body = json.dumps(STREAM).encode()
    head = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: teacher",
        "Authorization: Bearer test",
        f"Content-Length: {len(body)}",
    ]
    writer.write("\r\n".join([*head, "", ""]).encode() + body)
    await reader.readuntil(b"data: ")
    writer.close()
    await writer.wait_closed()
    gate.set()
    await teacher.wait_for_ended(1)
    assert teacher.calls[0].outcome is Outcome.CLIENT_LEFT
