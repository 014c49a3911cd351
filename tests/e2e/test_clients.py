"""Clients that are slow, old, large or strange: each gets its answer or an honest error, and holds nobody else up."""

import asyncio
import io
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from kdproxy.engine import cached_call, call
from kdproxy.providers import question
from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import ScriptedTeacher
from tests.wire import Close, Gap, Request, Reset, WireServer, answer, chat, chunked, sse_head

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": "Why?"}]}
RAW = orjson.dumps(ASK)


def own(request: Request) -> list[Any]:
    return [chat("own")] if request.body else [answer(b"{}")]


async def opened(proxy: RunningProxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = proxy.address.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


@pytest.mark.parametrize("end", [Reset(), Close()], ids=["reset", "close"])
async def test_a_client_of_http_1_0_sees_a_cut(end: Any) -> None:
    play = [
        answer(b"x" * 100).replace(b"Content-Length: 100", b"Transfer-Encoding: chunked")[:-100] + chunked(b"x"),
        Gap(),
    ]
    async with WireServer([*play, end]) as upstream, run_proxy(upstream.url) as proxy:
        reader, writer = await opened(proxy)
        writer.write(b"GET /v1/files/1 HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await reader.read(-1)
        writer.close()


async def test_a_client_of_http_1_0_gets_a_whole_answer() -> None:
    async with (
        WireServer([sse_head() + chunked(b"data: x\n\n", end=True)]) as upstream,
        run_proxy(upstream.url) as proxy,
    ):
        reader, writer = await opened(proxy)
        writer.write(b"GET /v1/files/1 HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        assert (await reader.read(-1)).endswith(b"\r\n\r\ndata: x\n\n")
        writer.close()


async def test_a_large_body_is_read_beside_the_loop(send: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading 30 MB takes seconds: what grows with the body must not run where all others are served."""
    ours = threading.get_ident()
    threads: dict[str, set[bool]] = {}

    def watched(module: Any, name: str) -> None:
        work = getattr(module, name)

        def watch(*arguments: Any, **options: Any) -> Any:
            threads.setdefault(name, set()).add(threading.get_ident() == ours)
            return work(*arguments, **options)

        monkeypatch.setattr(module, name, watch)

    watched(question, "content")
    watched(question, "read_content")
    watched(call, "match")
    watched(call, "v1_key")
    watched(cached_call, "cost_of")
    messages = [{"role": "user", "content": "word " * 20} for _ in range(12_000)]
    large = io.BytesIO(orjson.dumps({**ASK, "messages": messages}))
    async with WireServer(own) as upstream, run_proxy(upstream.url) as proxy:
        assert (await send(proxy.address + CHAT, data=large)).status == 200
        assert threads == {name: {False} for name in ("content", "read_content", "match", "v1_key", "cost_of")}
        threads.clear()
        assert (await send(proxy.address + CHAT, ASK)).status == 200
        assert threads["content"] == threads["read_content"] == {True}


async def test_lists_of_models_that_differ_in_their_stamps_add_no_line(
    send: Any, tmp_path: Path, journal_lines: Any
) -> None:
    lists = [[answer(orjson.dumps({"data": [{"id": name, "created": n}]}))] for n, name in enumerate("aaab")]
    async with WireServer(*lists) as upstream, run_proxy(upstream.url, data_dir=tmp_path / "data") as proxy:
        for number in range(4):
            got = await send(f"{proxy.address}/v1/models")
            assert orjson.loads(got.body)["data"][0]["created"] == number
    assert len([line for line in journal_lines(tmp_path / "data") if line["kind"] == "answer"]) == 2


@pytest.mark.parametrize(
    "head",
    [
        b"POST http://127.0.0.1/v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: " + b"x" * 60_000 + b"\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost:127.0.0.1\r\nX-Empty:\r\n",
        b"\r\nPOST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n",
    ],
    ids=["absolute form", "a long header", "small letters", "a line break before", "another port"],
)
async def test_a_strange_head_is_taken(head: bytes, exchange: Any) -> None:
    async with WireServer(own) as upstream, run_proxy(upstream.url) as proxy:
        raw = await exchange(proxy.address, head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(RAW) + RAW)
        assert raw.startswith(b"HTTP/1.1 200 OK\r\n"), raw[:300]
        assert b'"own"' in raw


async def test_a_body_that_waits_for_100_continue(send: Any) -> None:
    async with WireServer(own) as upstream, run_proxy(upstream.url) as proxy:
        reader, writer = await opened(proxy)
        writer.write(
            b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
            % (CHAT.encode(), len(RAW))
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(RAW)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()
        assert b"Expect" not in upstream.requests[0].raw_head


async def test_a_client_that_sends_a_byte_now_and_then_blocks_nobody(send: Any) -> None:
    async with WireServer(own) as upstream, run_proxy(upstream.url) as proxy:
        slow = [await opened(proxy) for _ in range(20)]
        whole = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(RAW)) + RAW
        for at in range(len(whole)):
            for _, writer in slow:
                writer.write(whole[at : at + 1])
            if at % 50 == 0:
                assert (await send(proxy.address + CHAT, ASK)).status == 200
        for reader, writer in slow:
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            writer.close()


async def test_a_name_that_dns_does_not_know_is_in_the_clients_error(send: Any, teacher: ScriptedTeacher) -> None:
    started = time.monotonic()
    async with run_proxy("http://teacher.invalid/v1", patience_seconds=1.0) as proxy:
        for path in (CHAT, "/v1/files", "/v1/models"):
            got = await send(proxy.address + path, None if path == "/v1/models" else ASK)
            assert got.status in (502, 503)
            assert b"teacher.invalid is not known to DNS" in got.body, got.body
    assert time.monotonic() - started < 30


async def test_an_absolute_target_names_a_host_of_this_proxy_too(exchange: Any) -> None:
    async with WireServer(own) as upstream, run_proxy(upstream.url) as proxy:
        raw = await exchange(
            proxy.address, b"GET http://elsewhere/v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        )
        assert raw.startswith(b"HTTP/1.1 421")
        assert upstream.requests == []
