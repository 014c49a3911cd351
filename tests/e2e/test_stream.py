"""Streams: live, byte for byte, stored only if whole, and never said to be whole before they are durable."""

import asyncio
import re
from typing import Any

import aiohttp
import pytest

from kdproxy.engine import early_error
from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import (
    CutBody,
    CutStream,
    EndTooEarly,
    EndWithoutTerminator,
    ErrorEvent,
    HoldAfter,
    HtmlPage,
    KeepAlive,
    Respond,
    ScriptedTeacher,
)

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
MESSAGES: list[dict[str, str]] = [{"role": "user", "content": "Why?"}]
ASK: dict[str, Any] = {"model": "m", "messages": MESSAGES, "stream": True}
USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}
DIALECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, ASK),
    "completions": ("/v1/completions", {"model": "m", "prompt": "Why?", "stream": True}),
    "responses": ("/v1/responses", {"model": "m", "input": "Why?", "stream": True}),
    "messages": ("/v1/messages", {**ASK, "max_tokens": 99}),
    "gemini": ("/v1beta/models/g:streamGenerateContent?alt=sse", {"contents": [{"parts": [{"text": "Why?"}]}]}),
}
TOKEN_AT = {"chat": 2, "completions": 1, "responses": 5, "messages": 4, "gemini": 1}
"""How many events there are up to the first that holds a token."""
PLAIN = {"Authorization": "Bearer x"}
VERSION = {**PLAIN, "anthropic-version": "2023-06-01"}
every_dialect = pytest.mark.parametrize("dialect", DIALECTS)


def headers(path: str) -> dict[str, str]:
    return VERSION if path.startswith("/v1/messages") else PLAIN


@every_dialect
async def test_each_event_arrives_before_the_next_is_made(
    teacher: ScriptedTeacher, proxy: RunningProxy, http: Any, dialect: str, reading: Any
) -> None:
    path, body = DIALECTS[dialect]
    gate = asyncio.Event()
    # Past what opens a stream: roles and the like wait for the first token.
    teacher.script(HoldAfter(events=TOKEN_AT[dialect], gate=gate))
    async with http.post(proxy.address + path, json=body, headers=headers(path)) as response:
        assert response.status == 200
        reader = reading(response)
        await reader.until(b"}")
        assert teacher.ended == 0
        gate.set()
        live = await reader.rest()
    async with http.post(proxy.address + path, json=body, headers=headers(path)) as response:
        assert await response.read() == live
        assert "; hit" in response.headers["Cache-Status"]


@every_dialect
@pytest.mark.parametrize("kind", [EndTooEarly, ErrorEvent, CutStream])
async def test_what_is_not_whole_is_delivered_and_never_stored(
    teacher: ScriptedTeacher, proxy: RunningProxy, http: Any, dialect: str, kind: Any, reading: Any
) -> None:
    path, body = DIALECTS[dialect]
    step = kind() if kind is EndTooEarly else kind(TOKEN_AT[dialect])
    received = []
    for url in (teacher.root_url, proxy.address):
        teacher.script(step)
        async with http.post(url + path, json=body, headers=headers(path)) as response:
            assert response.status == 200
            reader = reading(response)
            try:
                await reader.rest()
                is_cut = False
            except Exception:
                is_cut = True
            received.append((response.headers["Content-Type"], is_cut, response.content.total_bytes))
    assert received[1][:2] == received[0][:2]
    assert isinstance(step, CutStream) == received[1][1]
    # Answers carry their number, so that two may differ by a digit here and there.
    assert abs(received[1][2] - received[0][2]) < 40
    async with http.post(proxy.address + path, json=body, headers=headers(path)) as response:
        assert "fwd=miss" in response.headers["Cache-Status"]
        await response.read()
    assert teacher.count() == 3


async def test_the_bytes_of_a_broken_stream_are_the_providers(http: Any) -> None:
    """The same bytes that a client would have seen without a proxy, cut or in error."""
    async with ScriptedTeacher(deterministic=True) as teacher, run_proxy(teacher.root_url) as proxy:
        for step in (EndTooEarly(), ErrorEvent(3), CutStream(3), KeepAlive(2), EndWithoutTerminator()):
            received = []
            for url in (teacher.root_url, proxy.address):
                teacher.script(step)
                async with http.post(url + CHAT, json={**ASK, "seed": len(repr(step))}, headers=PLAIN) as response:
                    got = b""
                    try:
                        async for chunk in response.content.iter_any():
                            got += chunk
                    except Exception:
                        assert isinstance(step, CutStream)
                    received.append(got)
            assert received[0] == received[1], step


@pytest.mark.parametrize("step", [CutBody(40), CutStream(1)], ids=repr)
async def test_a_cut_json_answer_is_no_answer(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, step: Any
) -> None:
    """There is no honest way to pass on half a JSON object, and no byte of it is out: it is asked for again."""
    paths = {
        CHAT: {"model": "m", "messages": MESSAGES},
        "/v1/embeddings": {"model": "m", "input": "x"},
        "/v1/messages": {"model": "m", "messages": MESSAGES, "max_tokens": 9},
        "/v1beta/models/g:generateContent": {"contents": [{"parts": [{"text": "x"}]}]},
    }
    for number, (path, body) in enumerate(paths.items(), start=1):
        teacher.script(step, step)
        headers = VERSION if path == "/v1/messages" else PLAIN
        got = await send(proxy.address + path, body, headers=headers)
        assert got.status == 200, path
        assert "stored" in got.cache
        assert (await send(proxy.address + path, body, headers=headers)).body == got.body
        assert teacher.count() == 3 * number


async def test_json_answers_that_are_always_cut_are_given_up(teacher: ScriptedTeacher, send: Any) -> None:
    body = {"model": "m", "messages": MESSAGES}
    async with run_proxy(teacher, retry_attempts=2) as proxy:
        teacher.script(CutBody(40), CutBody(40))
        got = await send(proxy.address + CHAT, body)
        assert got.status == 503
        assert got.headers["x-should-retry"] == "true"
        assert b"cut its answer" in got.body
        assert teacher.count() == 2
        assert (await send(proxy.address + CHAT, body)).status == 200


async def test_a_cut_binary_answer_is_not_asked_for_again(
    teacher: ScriptedTeacher, proxy: RunningProxy, http: Any, client_key: str
) -> None:
    """Its beginning is with the client already."""
    teacher.script(CutBody(40))
    body = {"model": "m", "voice": "v", "input": "x"}
    with pytest.raises(aiohttp.ClientPayloadError):
        async with http.post(
            f"{proxy.address}/v1/audio/speech", json=body, headers={"Authorization": f"Bearer {client_key}"}
        ) as response:
            await response.read()
    assert teacher.count() == 1


@pytest.mark.parametrize("step", [Respond(200, {}, b"{}"), Respond(200, {}, b"[]")], ids=repr)
async def test_a_json_answer_that_is_none_is_delivered_and_never_stored(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, step: Any
) -> None:
    paths = {
        CHAT: {"model": "m", "messages": MESSAGES},
        "/v1/embeddings": {"model": "m", "input": "x"},
        "/v1/responses": {"model": "m", "input": "x"},
        "/v1/moderations": {"input": "x"},
        "/v1/audio/speech": {"model": "m", "voice": "v", "input": "x"},
        "/v1/images/generations": {"model": "gpt-image-1", "prompt": "x"},
        "/v1/messages": {"model": "m", "messages": MESSAGES, "max_tokens": 9},
        "/v1/messages/count_tokens": {"model": "m", "messages": MESSAGES},
        "/v1beta/models/g:generateContent": {"contents": [{"parts": [{"text": "x"}]}]},
    }
    teacher.script(*[step] * (3 * len(paths)))  # each is bought up to three times

    async def ask(path: str) -> tuple[str, int, bool]:
        got = await send(proxy.address + path, paths[path], headers=headers(path))
        return path, got.status, "stored" in got.cache

    asked = await asyncio.gather(*map(ask, paths))
    assert asked == [(path, 200, False) for path in paths]


@every_dialect
async def test_a_page_for_people_or_nothing_at_all_is_a_failed_attempt(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, dialect: str
) -> None:
    """Nothing of it is out, so it is asked for again: a script without retries would die of it."""
    path, body = DIALECTS[dialect]
    teacher.script(HtmlPage(), Respond(200, {}, b""))
    got = await send(proxy.address + path, body, headers=headers(path))
    assert (got.status, teacher.count()) == (200, 3)
    assert b"<html" not in got.body.lower()


async def test_keep_alive_comments_pass_and_are_not_stored(
    teacher: ScriptedTeacher, proxy: RunningProxy, http: Any, send: Any
) -> None:
    comment = b": keep-alive\n\n"
    teacher.script(KeepAlive(3))
    async with http.post(proxy.address + CHAT, json=ASK, headers=PLAIN) as response:
        live = await response.read()
    assert live.startswith(comment * 3)
    again = await send(proxy.address + CHAT, ASK)
    assert again.body == live.replace(comment, b"")
    teacher.script(KeepAlive(3))
    whole = await send(proxy.address + CHAT, {**ASK, "stream": False})
    assert (await send(proxy.address + CHAT, {**ASK, "stream": False})).body == whole.body.lstrip()
    assert teacher.count() == 2


async def test_keep_alives_are_live(http: Any, reading: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment that waits for the first token for ever keeps nothing alive."""
    monkeypatch.setattr(early_error, "LONGEST_HOLD_SECONDS", 0.05)
    gate = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n: hold on\n\n")
        await gate.wait()
        writer.write(b'data: {"choices":[{"index":0,"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with (
        server,
        run_proxy(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as proxy,
        http.post(proxy.address + CHAT, json=ASK, headers=PLAIN) as response,
    ):
        reader = reading(response)
        await reader.until(b": hold on\n\n")
        gate.set()
        assert (await reader.rest()).endswith(b"data: [DONE]\n\n")


@every_dialect
async def test_a_stream_without_its_terminator_is_whole_only_where_the_dialect_says_so(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, dialect: str
) -> None:
    path, body = DIALECTS[dialect]
    teacher.script(EndWithoutTerminator())
    await send(proxy.address + path, body, headers=headers(path))
    again = await send(proxy.address + path, body, headers=headers(path))
    # Of Responses the last event holds the status; the others end with a reason and a clean end.
    is_whole = dialect != "responses"
    assert ("; hit" in again.cache) == is_whole
    assert teacher.count() == (1 if is_whole else 2)


@pytest.mark.parametrize("dialect", ["chat", "completions", "responses", "messages"])
@pytest.mark.parametrize("manner", ["open", "cut"])
async def test_after_its_terminator_a_stream_is_whole_however_the_connection_ends(
    http: Any, send: Any, dialect: str, manner: str
) -> None:
    """Some servers send `[DONE]` and then leave the connection open, or drop it: the answer is paid and whole."""
    path, body = DIALECTS[dialect]
    async with (
        ScriptedTeacher() as teacher,
        http.post(teacher.root_url + path, json=body, headers=headers(path)) as response,
    ):
        recording = await response.read()
    calls = 0
    done = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%b\r\n" % (len(recording), recording))
        if manner == "open":
            await done.wait()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, run_proxy(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as proxy:
        async with asyncio.timeout(8):
            first = await send(proxy.address + path, body, headers=headers(path))
        assert first.body == recording
        again = await send(proxy.address + path, body, headers=headers(path))
        assert (again.body, calls) == (recording, 1)
        done.set()


async def test_the_last_event_waits_for_the_disk(
    teacher: ScriptedTeacher, proxy: RunningProxy, http: Any, send: Any, monkeypatch: pytest.MonkeyPatch, reading: Any
) -> None:
    archive = proxy.app._directory.archive
    keep, gate, has_begun = archive.keep, asyncio.Event(), asyncio.Event()

    async def slow_keep(record: Any, **how: Any) -> bool:
        has_begun.set()
        await gate.wait()
        return await keep(record, **how)

    monkeypatch.setattr(archive, "keep", slow_keep)
    for path, body, last in (
        (CHAT, ASK, b'finish_reason":"stop'),
        ("/v1/messages", DIALECTS["messages"][1], b"message_stop"),
        ("/v1/responses", DIALECTS["responses"][1], b"response.completed"),
        (DIALECTS["gemini"][0], DIALECTS["gemini"][1], b"STOP"),
    ):
        gate.clear()
        has_begun.clear()
        async with http.post(proxy.address + path, json=body, headers=headers(path)) as response:
            reader = reading(response)
            await reader.until(b"\n")
            await has_begun.wait()
            # A round trip of another request lets everything that could come arrive.
            await send(f"{proxy.address}/_kdproxy/healthz")
            reader.received += response.content.read_nowait()
            assert last not in reader.received
            assert b"[DONE]" not in reader.received
            gate.set()
            assert last in await reader.rest()
    gate.clear()
    has_begun.clear()
    waiting = asyncio.create_task(send(proxy.address + CHAT, {"model": "m", "messages": MESSAGES}))
    await has_begun.wait()
    await send(f"{proxy.address}/_kdproxy/healthz")
    assert not waiting.done()
    gate.set()
    assert (await waiting).status == 200


async def test_usage_is_taken_out_where_it_was_not_asked_for(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    url = proxy.address + CHAT
    full = await send(url, {**ASK, **USAGE})
    assert b'"usage":null' in full.body
    assert b'"total_tokens"' in full.body
    plain = await send(url, ASK)
    assert "; hit" in plain.cache
    assert b"usage" not in plain.body
    # What is left is the rest, unchanged: the usage chunk goes, and one member of each other chunk.
    kept = [event for event in full.body.split(b"\n\n") if b"total_tokens" not in event]
    assert plain.body.split(b"\n\n") == [re.sub(rb',?"usage":null', b"", event) for event in kept]
    assert (await send(url, {**ASK, **USAGE})).body == full.body
    assert (await send(url, {**ASK, "stream_options": {}})).body == plain.body
    assert teacher.count() == 1


async def test_usage_is_never_invented(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    url = proxy.address + CHAT
    plain = await send(url, ASK)
    asked = await send(url, {**ASK, **USAGE})
    assert "fwd=miss" in asked.cache
    assert b"total_tokens" in asked.body
    assert b"usage" not in plain.body
    assert teacher.count() == 2
