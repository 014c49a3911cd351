"""Total pass-through, the way back: answers come as the teacher sent them."""

import asyncio
from typing import Any

import orjson
import pytest
from aiohttp import web

from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import Gzip, Redirect, Respond, ScriptedTeacher

pytestmark = pytest.mark.asyncio

HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection"}

Mirror = Any
"""The server of conftest.py that remembers raw requests and answers with raw bytes."""


@pytest.mark.parametrize("path", ["/v1/files/x", "/v1/chat/completions"])
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 418, 422, 451, 501])
async def test_errors_come_verbatim(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, question: Any, path: str, status: int
) -> None:
    body = b'{"error": {"message": "na\xc3\xafve",\n "x": 1}}'
    teacher.script(Respond(status, {"X-Own": "1", "Content-Type": "application/problem+json"}, body))
    got = await send(proxy.address + path, question)
    assert (got.status, got.body) == (status, body)
    assert got.headers["X-Own"] == "1"
    assert got.headers["Content-Type"] == "application/problem+json"
    assert teacher.count() == 1


async def test_answers_without_a_body(before_mirror: RunningProxy, mirror: Mirror, send: Any, exchange: Any) -> None:
    request = b"GET /v1/files HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    for head in (b"204 No Content", b"304 Not Modified", b"205 Reset Content"):
        tail = b"Content-Length: 0\r\n\r\n" if head.startswith(b"205") else b'ETag: "x"\r\n\r\n'
        mirror.answer = b"HTTP/1.1 " + head + b"\r\n" + tail
        reply = await exchange(before_mirror.address, request)
        assert reply.startswith(b"HTTP/1.1 " + head), reply
        assert reply.endswith(b"\r\n\r\n")
        assert b"chunked" not in reply.lower()
    mirror.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nContent-Type: a/b\r\n\r\n"
    reply = await exchange(before_mirror.address, request.replace(b"GET", b"HEAD"))
    assert b"Content-Length: 1234\r\n" in reply
    assert reply.endswith(b"\r\n\r\n")


async def test_nothing_is_added_to_an_answer_but_cache_status(
    before_mirror: RunningProxy, mirror: Mirror, send: Any
) -> None:
    mirror.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\nX-A: 2\r\n\r\nok"
    got = await send(f"{before_mirror.address}/v1/files")
    assert got.headers.getall("X-A") == ["1", "2"]
    # Date is a proxy's to add (RFC 9110 section 6.6.1).
    assert {name.lower() for name in got.headers} == {"content-length", "x-a", "cache-status", "date"}


async def test_length_and_chunking_of_an_answer_are_kept(
    before_mirror: RunningProxy, mirror: Mirror, send: Any
) -> None:
    mirror.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"
    got = await send(f"{before_mirror.address}/v1/files")
    assert got.body == b"abcde"
    assert "Content-Length" not in got.headers
    mirror.answer, mirror.closes = b"HTTP/1.0 200 OK\r\n\r\nuntil the end", True
    got = await send(f"{before_mirror.address}/v1/files")
    assert got.body == b"until the end"


async def test_hop_by_hop_headers_of_an_answer_are_taken_out(
    before_mirror: RunningProxy, mirror: Mirror, send: Any
) -> None:
    mirror.answer = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Named\r\nX-Named: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Proxy-Authenticate: Basic\r\nTrailer: X-T\r\nUpgrade: h2c\r\nX-End: 1\r\n\r\nok"
    )
    got = await send(f"{before_mirror.address}/v1/files")
    names = {name.lower() for name in got.headers}
    assert not names & (HOP_BY_HOP | {"x-named", "proxy-authenticate"})
    assert "x-end" in names


async def test_no_redirect_sends_a_client_past_the_proxy(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, question: Any
) -> None:
    for path in ("/v1/files", "/v1/chat/completions"):
        for status in (301, 302, 303, 307, 308):
            teacher.script(Redirect("http://user:word@127.0.0.1:1/elsewhere?key=canary", status))
            got = await send(proxy.address + path, question)
            assert (got.status, got.headers.get("Location"), got.headers["x-should-retry"]) == (502, None, "false")
            error = orjson.loads(got.body)["error"]
            assert error["code"] == "upstream_redirects"
            assert "http://127.0.0.1:1/elsewhere. " in error["message"]
            assert b"canary" not in got.body
            assert b"word" not in got.body
    assert teacher.count() == 10


async def test_a_compressed_answer_is_decoded(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, question: Any
) -> None:
    for body in (question, {**question, "stream": True}):
        teacher.script(Gzip())
        got = await send(f"{proxy.base_url}/chat/completions", body, headers={"Accept-Encoding": "gzip"})
        assert "Content-Encoding" not in got.headers
        assert b"Answer" in got.body
        again = await send(f"{proxy.base_url}/chat/completions", body)
        assert again.body == got.body
    assert teacher.calls[0].headers["Accept-Encoding"] == "identity"
    assert teacher.count() == 2


async def test_a_coding_that_nobody_here_knows_stays_as_it_is(
    before_mirror: RunningProxy, mirror: Mirror, send: Any
) -> None:
    mirror.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Encoding: aes128gcm\r\n\r\n\x00\x01\x02"
    for path in ("/v1/files", "/v1/audio/speech"):
        for _ in range(2):
            got = await send(before_mirror.address + path, {"model": "m", "voice": "v", "input": "x"})
            assert got.headers["Content-Encoding"] == "aes128gcm"
            assert got.body == b"\x00\x01\x02"
    assert len(mirror.requests) == 4


async def test_cookies_pass_and_are_not_stored(
    before_mirror: RunningProxy, mirror: Mirror, send: Any, question: Any
) -> None:
    body = b'{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"x"}}]}'
    mirror.answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nSet-Cookie: session=canary-cookie\r\n"
        b"OpenAI-Organization: canary-org\r\nx-request-id: r1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    url = f"{before_mirror.base_url}/chat/completions"
    first = await send(url, question)
    assert first.headers["Set-Cookie"] == "session=canary-cookie"
    again = await send(url, question)
    assert again.body == first.body == body
    assert "Set-Cookie" not in again.headers
    assert again.headers["x-request-id"] == "r1"
    journal = (before_mirror.data_dir / "api_recovery.jsonl").read_bytes()
    assert b"canary" not in journal
    # Nor does the proxy's own client send a cookie of one script with another's call.
    await send(f"{before_mirror.address}/v1/files")
    assert not any(name.lower() == "cookie" for name, _ in mirror.request()[1])


async def test_an_unreachable_upstream_is_named_in_the_providers_shape(send: Any, question: Any) -> None:
    async with run_proxy("http://127.0.0.1:9/v1", retry_attempts=1) as proxy:
        for path, member in (("/v1/files", "code"), ("/v1/chat/completions", "code"), ("/v1/messages/batches", "type")):
            got = await send(proxy.address + path, {**question, "max_tokens": 1})
            assert got.status in (502, 503)
            assert b"could not be reached" in got.body
            assert member.encode() in got.body
            assert got.headers["x-should-retry"] == "true"


async def test_a_base_url_with_a_path_and_a_version_is_joined_once(teacher: ScriptedTeacher, send: Any) -> None:
    async with run_proxy([f"a={teacher.root_url}/gate/v1", f"b={teacher.root_url}/gate"]) as proxy:
        for target in ("/upstreams/a/v1/files", "/upstreams/a/files", "/upstreams/b/v1/files"):
            await send(proxy.address + target)
            assert teacher.calls[-1].target == "/gate/v1/files"


async def test_a_slow_reader_gets_it_all(before_mirror: RunningProxy, mirror: Mirror, http: Any) -> None:
    size = 20 << 20
    mirror.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    async with http.get(f"{before_mirror.address}/v1/files/x/content") as response:
        received = 0
        async for chunk in response.content.iter_chunked(1 << 20):
            received += len(chunk)
            await asyncio.sleep(0)
    assert received == size


async def test_a_cut_answer_is_cut_for_the_client_too(
    before_mirror: RunningProxy, mirror: Mirror, exchange: Any
) -> None:
    request = b"GET /v1/files HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    mirror.closes = True
    mirror.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"
    reply = await exchange(before_mirror.address, request)
    assert b"Content-Length: 100\r\n" in reply
    assert reply.endswith(b"short")
    mirror.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"
    reply = await exchange(before_mirror.address, request)
    assert b"ab" in reply
    assert not reply.endswith(b"0\r\n\r\n")


async def test_an_upstream_below_aiohttp_is_not_needed(send: Any) -> None:
    """The teacher's address may be another loopback name."""

    async def handle(request: web.BaseRequest) -> web.Response:
        return web.Response(text=request.host)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    try:
        async with run_proxy(f"http://localhost:{port}") as proxy:
            got = await send(f"{proxy.address}/v1/files")
            assert got.body == f"localhost:{port}".encode()
    finally:
        await runner.cleanup()
