"""Each deadline strikes at its own time and says in its error which one it was."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from kdproxy.testing.proxy import run_proxy
from kdproxy.testing.teacher import Hang, HoldAfter, RateLimited, ScriptedTeacher
from tests.wire.asks import ASK, CHAT

pytestmark = pytest.mark.asyncio

SETTINGS = ("connect_seconds", "first_byte_seconds", "read_seconds", "total_seconds", "patience_seconds")


def named(message: str) -> list[str]:
    """Return the deadlines that an error names."""
    return [setting for setting in SETTINGS if setting in message]


@pytest_asyncio.fixture
async def deaf() -> AsyncIterator[str]:
    """A host that takes no connection: its backlog is full, so that the kernel leaves the handshake unanswered."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            for filler in fillers:
                filler.close()


@pytest_asyncio.fixture
async def halting() -> AsyncIterator[str]:
    """A server that begins a JSON answer and falls silent."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
        await over.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        over.set()


async def test_connect(deaf: str, send: Any) -> None:
    async with run_proxy(deaf, retry_attempts=1, connect_seconds=0.3) as proxy:
        got = await send(proxy.address + CHAT, ASK)
    assert (got.status, named(got.body.decode())) == (503, ["connect_seconds"])


@pytest.mark.parametrize("setting", ["first_byte_seconds", "total_seconds"])
async def test_no_answer_begins(teacher: ScriptedTeacher, send: Any, setting: str) -> None:
    async with run_proxy(teacher, retry_attempts=1, **{setting: 0.3}) as proxy:
        teacher.script(Hang())
        got = await send(proxy.address + CHAT, ASK)
        teacher.release()
    assert (got.status, named(got.body.decode())) == (503, [setting])
    assert got.headers["x-should-retry"] == "true"


@pytest.mark.parametrize("setting", ["read_seconds", "total_seconds"])
async def test_silence_in_a_whole_answer(halting: str, send: Any, setting: str) -> None:
    async with run_proxy(halting, retry_attempts=1, **{setting: 0.3}) as proxy:
        got = await send(proxy.address + CHAT, ASK)
    assert (got.status, named(json.loads(got.body)["error"]["message"].partition("Hint")[0])) == (503, [setting])
    assert got.headers["x-should-retry"] == "true"


@pytest.mark.parametrize("setting", ["read_seconds", "total_seconds"])
async def test_silence_in_a_stream_cuts_it_and_is_logged(
    teacher: ScriptedTeacher, http: Any, caplog: pytest.LogCaptureFixture, setting: str
) -> None:
    gate = asyncio.Event()
    caplog.set_level("INFO")
    async with run_proxy(teacher, **{setting: 0.3}) as proxy:
        teacher.script(HoldAfter(events=2, gate=gate))
        started = time.monotonic()
        with pytest.raises(Exception, match=r"(?i)payload|closed|transfer"):
            async with http.post(
                proxy.address + CHAT, json={**ASK, "stream": True}, headers={"Authorization": "Bearer x"}
            ) as response:
                await response.read()
        assert time.monotonic() - started < 5
        gate.set()
    (record,) = [record for record in caplog.records if record.message == "an answer was cut"]
    assert named(record.reason) == [setting]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 1.0),
        ({"x-stainless-read-timeout": "2"}, 1.8),
        # What is no time, or none that anybody means, is as if it were not there.
        *(({"x-stainless-read-timeout": value}, 1.0) for value in ("", "nan", "-1", "0", "soon", "1e99")),
    ],
    ids=repr,
)
async def test_patience_is_the_clients_own_where_it_says_so(
    teacher: ScriptedTeacher, send: Any, headers: dict[str, str], seconds: float
) -> None:
    teacher.script(RateLimited(retry_after=40))
    async with run_proxy(teacher, patience_seconds=1.0) as proxy:
        started = time.monotonic()
        got = await send(proxy.address + CHAT, ASK, headers=headers)
    assert seconds - 0.05 <= time.monotonic() - started < seconds + 0.75
    assert (got.status, json.loads(got.body)["error"]["code"]) == (429, "still_waiting")
