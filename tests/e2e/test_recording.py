"""What is recorded of an answer: forms side by side, however it was cut, up to a limit."""

import asyncio
import gzip
from pathlib import Path
from typing import Any

import pytest

from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import (
    Answer,
    HoldAfter,
    Respond,
    ScriptedTeacher,
    Slow,
)

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
MESSAGES: list[dict[str, str]] = [{"role": "user", "content": "Why?"}]
ASK: dict[str, Any] = {"model": "m", "messages": MESSAGES, "stream": True}
USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}
SOUND = b"\xff\xfb\x90\x00"
PLAIN = {"Authorization": "Bearer x"}


async def test_the_two_forms_of_a_sample_lie_beside_each_other(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, journal_lines: Any
) -> None:
    url = proxy.address + CHAT
    stream = await send(url, ASK)
    whole = await send(url, {**ASK, "stream": False})
    assert (await send(url, ASK)).body == stream.body
    assert (await send(url, {**ASK, "stream": False})).body == whole.body
    lines = journal_lines(proxy.data_dir)
    assert [line["form"] for line in lines] == ["sse", "json"]
    assert lines[0]["key"] == lines[1]["key"]


async def test_a_line_says_what_the_purchase_was_and_by_which_credential_without_naming_it(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any, journal_lines: Any
) -> None:
    teacher.script(Respond(status=503), Answer())
    for number, token in enumerate(("canary-one", "canary-two", "canary-one")):
        async with run_proxy(teacher, data_dir=tmp_path) as proxy:
            ask = {**ASK, "seed": number, "stream": False}
            await send(proxy.address + CHAT, ask, headers={"Authorization": f"Bearer {token}"})
    first, second, third = journal_lines(tmp_path)
    assert [line["attempts"] for line in (first, second, third)] == [2, 1, 1]
    assert {line["billed"] for line in (first, second, third)} == {"yes"}
    assert first["credential"] == third["credential"] != second["credential"], "over restarts"
    assert not any(b"canary" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


async def test_events_cut_anywhere_by_the_network_are_the_same_recording(http: Any, send: Any) -> None:
    recording = (
        b'\xef\xbb\xbfid: \xff\r\n: note\r\ndata: {"choices":[{"index":0,"delta":{"content":"\xc3\xa9\\n"}}]}\r\n\r\n'
        b'data: {"choices":[{"index":0,\r\ndata: "finish_reason":"stop"}]}\r\n\r\ndata: [DONE]\r\n\r\n'
    )

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for byte in recording:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, run_proxy(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as proxy:
        live = await send(proxy.address + CHAT, ASK)
        assert live.body == recording
        again = await send(proxy.address + CHAT, ASK)
        assert "; hit" in again.cache
        assert again.body == recording.replace(b": note\r\n", b"")


async def test_an_answer_beyond_the_limit_is_delivered_and_not_stored(send: Any) -> None:
    async with ScriptedTeacher(answer_words=500) as teacher, run_proxy(teacher, answer_limit_bytes=1_024) as proxy:
        for body in (ASK, {**ASK, "stream": False}):
            for _ in range(2):
                got = await send(proxy.address + CHAT, body)
                assert got.status == 200
                assert len(got.body) > 3_000
                assert "stored" not in got.cache.replace("not-stored", "")
        assert teacher.count() == 4
        sound = {"model": "m", "voice": "v", "input": "x"}
        for _ in range(2):
            got = await send(f"{proxy.address}/v1/audio/speech", sound)
            assert len(got.body) > 4_000
        assert teacher.count() == 6


async def test_sound_is_live_but_for_its_end(
    teacher: ScriptedTeacher, proxy: RunningProxy, http: Any, reading: Any
) -> None:
    gate = asyncio.Event()
    teacher.script(HoldAfter(events=4, gate=gate))
    body = {"model": "m", "voice": "v", "input": "x"}
    async with http.post(f"{proxy.address}/v1/audio/speech", json=body, headers=PLAIN) as response:
        reader = reading(response)
        await reader.until(b"\xff\xfb\x90\x00")
        assert teacher.ended == 0
        gate.set()
        live = await reader.rest()
    async with http.post(f"{proxy.address}/v1/audio/speech", json=body, headers=PLAIN) as response:
        assert await response.read() == live


@pytest.mark.parametrize(
    ("framing", "on_the_wire", "is_stored"),
    [
        ("Connection: close", SOUND, False),
        ("Content-Length: 4", SOUND, True),
        ("Transfer-Encoding: chunked", b"4\r\n%s\r\n0\r\n\r\n" % SOUND, True),
        ("Connection: close\r\nContent-Encoding: gzip", gzip.compress(SOUND), True),
    ],
)
async def test_sound_that_may_have_been_cut_is_not_stored(
    send: Any, framing: str, on_the_wire: bytes, is_stored: bool
) -> None:
    """Where a body ends with its connection, a server that died looks like one that was done."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\n{framing}\r\n\r\n".encode() + on_the_wire)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, run_proxy(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as proxy:
        for is_hit in (False, is_stored):
            got = await send(f"{proxy.address}/v1/audio/speech", {"model": "m", "voice": "v", "input": "x"})
            assert got.body == SOUND
            assert ("; hit" in got.cache) == is_hit


async def test_a_stream_that_nobody_asked_for_is_not_stored(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    events = b'data: {"choices":[{"index":0,"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    for body, kind in (({**ASK, "stream": False}, "text/event-stream"), (ASK, "application/json")):
        teacher.script(Respond(200, {"Content-Type": kind}, events), Answer())
        assert (await send(proxy.address + CHAT, body)).body == events
        assert "fwd=miss" in (await send(proxy.address + CHAT, body)).cache


async def test_a_slow_stream_does_not_hold_up_others(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    teacher.script(Slow(0.1))
    slow = asyncio.create_task(send(proxy.address + CHAT, ASK))
    await teacher.wait_for_calls(1)
    for number in range(20):
        assert (await send(proxy.address + CHAT, {**ASK, "seed": number})).status == 200
    assert not slow.done()
    assert (await slow).status == 200
