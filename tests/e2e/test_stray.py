"""One stray response never shifts answers: each question gets its own, from the upstream and from the store."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from kdproxy.testing.proxy import run_proxy, run_proxy_process
from tests.wire import (
    Certificate,
    Close,
    Gap,
    Play,
    Request,
    WireServer,
    answer,
    chat,
    chat_body,
    chunked,
    sse,
    sse_head,
)

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
STRAY = chat("stray")
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


def ask(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": text}], **more}


def asked(request: Request) -> str:
    return str(orjson.loads(request.body)["messages"][0]["content"])


def chunked_chat(text: str) -> bytes:
    body = orjson.dumps(chat_body(text))
    return sse_head(kind="application/json") + chunked(body[:9], body[9:], end=True)


def stream_of(text: str) -> bytes:
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
    end = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return (
        sse_head()
        + sse({**chunk, "choices": choices}, {**chunk, "choices": end}, "data: [DONE]\n\n")
        + chunked(end=True)
    )


BEFORE: dict[str, Play] = {
    "a second answer in the same packet": [chat("one") + STRAY],
    "two more answers in the same packet": [chat("one") + STRAY + STRAY],
    "a second answer in a packet of its own": [chat("one"), Gap(), STRAY],
    "half of a second answer, then the rest": [chat("one") + STRAY[:30], Gap(), STRAY[30:]],
    "more bytes than Content-Length": [chat("one") + b'{"and": "more"}'],
    "a line break after the body": [chat("one") + b"\r\n"],
    "an answer after the last chunk": [chunked_chat("one") + STRAY],
    "an answer after the last chunk, later": [chunked_chat("one"), Gap(), STRAY],
    "bytes after the last chunk": [chunked_chat("one") + b"5\r\nhello\r\n0\r\n\r\n"],
    "interim responses after the answer": [chat("one") + INTERIM * 50],
    "a 408 while idle": [chat("one"), Gap(), answer(b"", status="408 Request Timeout")],
    "an answer and the close": [chat("one"), Gap(), STRAY, Close()],
    "interim responses before": [INTERIM * 50 + chat("one") + STRAY],
}


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "once it has come"])
@pytest.mark.parametrize("first", BEFORE.values(), ids=BEFORE)
async def test_three_questions_get_their_own_answers(first: Play, waits: bool, send: Any, tmp_path: Path) -> None:
    def by_question(request: Request) -> Play:
        return first if asked(request) == "one" else [chat(asked(request))]

    async with WireServer(by_question) as upstream, run_proxy(upstream.url, data_dir=tmp_path / "data") as proxy:
        for _ in range(2):
            for text in ("one", "two", "three"):
                got = await send(proxy.address + CHAT, ask(text))
                assert (got.status, orjson.loads(got.body)["choices"][0]["message"]["content"]) == (200, text)
                if text == "one" and waits:
                    await upstream.wait_for_end(1)
        assert len(upstream.requests) == 3


async def test_a_stray_answer_after_a_stream(send: Any, tmp_path: Path) -> None:
    def by_question(request: Request) -> Play:
        return [stream_of(asked(request)) + stream_of("stray")]

    async with WireServer(by_question) as upstream, run_proxy(upstream.url, data_dir=tmp_path / "data") as proxy:
        for _ in range(2):
            for text in ("one", "two", "three"):
                got = await send(proxy.address + CHAT, ask(text, stream=True))
                assert f'"content": "{text}"'.encode() in got.body
                assert b"stray" not in got.body
        assert (len(upstream.requests), upstream.connections) == (3, 3)


async def test_a_stray_answer_over_tls(send: Any, tmp_path: Path) -> None:
    def by_question(request: Request) -> Play:
        return [chat(asked(request)), Gap(), STRAY]

    certificate = Certificate(tmp_path)
    environment = {"SSL_CERT_FILE": str(certificate.path)}
    async with (
        WireServer(by_question, ssl_context=certificate.context) as upstream,
        run_proxy_process(upstream.url, tmp_path / "data", environment=environment) as proxy,
    ):
        for _ in range(2):
            for text in ("one", "two", "three"):
                got = await send(proxy.address + CHAT, ask(text))
                assert orjson.loads(got.body)["choices"][0]["message"]["content"] == text
                await upstream.wait_for_connections(0)
        assert len(upstream.requests) == 3


async def test_what_passes_through_gets_its_own_answer(send: Any) -> None:
    def by_path(request: Request) -> Play:
        return [answer(request.path.encode()) + STRAY]

    async with WireServer(by_path) as upstream, run_proxy(upstream.url) as proxy:
        for number in range(3):
            assert (await send(f"{proxy.address}/v1/files/{number}")).body == b"/v1/files/%d" % number
            got = await send(f"{proxy.address}/v1/files/up{number}", data=b"x" * 9)
            assert got.body == b"/v1/files/up%d" % number
    assert [request.body for request in upstream.requests[1::2]] == [b"x" * 9] * 3


async def test_a_server_that_answers_before_it_is_asked_is_no_upstream(
    send: Any, tmp_path: Path, journal_lines: Any
) -> None:
    async with (
        WireServer([chat("own")], greeting=[STRAY]) as upstream,
        run_proxy(upstream.url, data_dir=tmp_path / "data", retry_seconds=0.0) as proxy,
    ):
        for text in ("one", "two"):
            got = await send(proxy.address + CHAT, ask(text))
            assert got.status in (502, 503)
            assert b"sends bytes before any request" in got.body
        assert upstream.requests == []
    assert journal_lines(tmp_path / "data") == []


async def test_the_rest_of_a_cancelled_answer_reaches_nobody(send: Any, tmp_path: Path) -> None:
    """A pass-through whose client leaves in the middle: what comes later belongs to no other question."""
    gate = asyncio.Event()

    def by_path(request: Request) -> Play:
        if "slow" not in request.path:
            return [answer(request.path.encode())]
        return [answer(b"x" * 100)[:-50], gate, b"x" * 50 + STRAY]

    async with WireServer(by_path) as upstream, run_proxy(upstream.url) as proxy:
        host, port = proxy.address.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /v1/slow HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await reader.readuntil(b"xx")
        writer.close()
        gate.set()
        await upstream.wait_for_end(1)
        for number in range(3):
            assert (await send(f"{proxy.address}/v1/files/{number}")).body == b"/v1/files/%d" % number
