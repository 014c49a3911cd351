"""Total pass-through: whatever is no question goes to the teacher as it came, and its answer back as it came."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import Gzip, Redirect, Respond, ScriptedTeacher

pytestmark = pytest.mark.asyncio

HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection"}


class Mirror:
    """A server below every nicety: remembers the raw bytes of each request, answers with raw bytes."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.url = ""
        self.closes = False

    def request(self) -> tuple[str, list[tuple[str, str]], bytes]:
        """Return the last request: its line, its headers in order, its body."""
        head, _, body = self.requests[-1].partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        return line, [(name, value.strip()) for name, _, value in (field.partition(":") for field in fields)], body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = {
                    name.strip().lower(): value.strip()
                    for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
                }
                body = b""
                if b"content-length" in fields:
                    body = await reader.readexactly(int(fields[b"content-length"]))
                elif fields.get(b"transfer-encoding") == b"chunked":
                    body = await reader.readuntil(b"0\r\n\r\n")
                self.requests.append(head + body)
                writer.write(self.answer)
                await writer.drain()
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest_asyncio.fixture
async def mirror() -> AsyncIterator[Mirror]:
    mirror = Mirror()
    server = await asyncio.start_server(mirror.serve, "127.0.0.1", 0)
    mirror.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield mirror


@pytest_asyncio.fixture
async def before_mirror(mirror: Mirror) -> AsyncIterator[RunningProxy]:
    async with run_proxy(mirror.url) as proxy:
        yield proxy


# -- the request ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_every_method(before_mirror: RunningProxy, mirror: Mirror, send: Any, method: str) -> None:
    got = await send(f"{before_mirror.address}/v1/files/x?a=1", method=method)
    assert (got.status, got.body) == (200, b"ok")
    assert mirror.request()[0] == f"{method} /v1/files/x?a=1 HTTP/1.1"


@pytest.mark.parametrize(
    "target",
    [
        "/v1/files?q=%2F%7e%41+b;c=d&&=&e=%zz&f=%E2%9C%93",
        "/v1/files/a%2Fb%20c/%7Euser;v=1",
        "/v1/files?",
        "/v1/files?a=b?c=/d",
        "/v1/files//double//slash/",
        '/v1/a|b"c<d>e`f{g}h\\i^j',
        "/v1/files?a=[1]&b={x}",
        "/v1/files:import",
        "/v1",
    ],
)
async def test_the_target_is_not_touched(
    before_mirror: RunningProxy, mirror: Mirror, exchange: Any, target: str
) -> None:
    reply = await exchange(
        before_mirror.address, f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    )
    assert reply.startswith(b"HTTP/1.1 200"), reply
    # An empty query is no query (RFC 3986 section 6.2.3 lets it differ; no provider does).
    assert mirror.request()[0] in (f"GET {target} HTTP/1.1", f"GET {target.removesuffix('?')} HTTP/1.1")


async def test_bytes_beyond_ascii_in_the_target_do_no_harm(
    before_mirror: RunningProxy, mirror: Mirror, exchange: Any
) -> None:
    for target in (b"/v1/files/\xff\xfe", "/v1/files?name=é".encode(), b"/v1/files?name=\xe9"):
        reply = await exchange(
            before_mirror.address, b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        status = int(reply.split()[1])
        assert status in (200, 400), reply
        if status == 200:
            assert mirror.requests[-1].split(b" ")[1] == target


async def test_only_hop_by_hop_headers_are_taken_out_and_none_is_added(
    before_mirror: RunningProxy, mirror: Mirror, exchange: Any
) -> None:
    body = b"\x00\x01binary\xff"
    request = (
        b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nX-One: 1\r\nx-one: 2\r\nAUTHORIZATION: Bearer abc\r\n"
        b"Cookie: a=b\r\nX-Empty:\r\nUser-Agent: script/1\r\nAccept-Encoding: gzip, br\r\nKdproxy-Mode: cache\r\n"
        b"Kdproxy-Run: r\r\nConnection: close, X-Named\r\nX-Named: private\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
        b"Upgrade: h2c\r\nProxy-Connection: close\r\nProxy-Authorization: Basic x\r\nContent-Length: %d\r\n\r\n"
    ) % len(body)
    reply = await exchange(before_mirror.address, request + body)
    assert reply.startswith(b"HTTP/1.1 200")
    _, headers, sent = mirror.request()
    assert sent == body
    names = sorted((name.lower(), value) for name, value in headers)
    assert names == [
        ("accept-encoding", "identity"),
        ("authorization", "Bearer abc"),
        ("content-length", str(len(body))),
        ("cookie", "a=b"),
        ("host", mirror.url.removeprefix("http://")),
        ("user-agent", "script/1"),
        ("x-empty", ""),
        ("x-one", "1"),
        ("x-one", "2"),
    ]


async def test_a_question_gets_no_header_added_either(
    before_mirror: RunningProxy, mirror: Mirror, exchange: Any
) -> None:
    body = b'{"model": "m", "messages": []}'
    await exchange(
        before_mirror.address,
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
    )
    _, headers, sent = mirror.request()
    assert sent == body
    assert {name.lower() for name, _ in headers} == {
        *("accept-encoding", "content-length", "content-type", "host", "x-a"),
    }


async def test_header_bytes_beyond_ascii_go_through(before_mirror: RunningProxy, mirror: Mirror, exchange: Any) -> None:
    for value, sent in (("naïve\u00a0x".encode(), "naïve\u00a0x".encode()), (b"caf\xe9", "café".encode())):
        # aiohttp writes UTF-8 only: other bytes are taken for Latin-1, as HTTP did long ago, so no letter is lost.
        mirror.answer = b"HTTP/1.1 200 OK\r\nX-Back: " + value + b"\r\nContent-Length: 0\r\n\r\n"
        reply = await exchange(
            before_mirror.address,
            b"GET /v1/files HTTP/1.1\r\nHost: localhost\r\nX-There: " + value + b"\r\nConnection: close\r\n\r\n",
        )
        assert b"X-There: " + sent + b"\r\n" in mirror.requests[-1]
        assert b"X-Back: " + sent + b"\r\n" in reply


async def test_a_gzipped_body_goes_on_gzipped(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    body = gzip.compress(b'{"model":"m","messages":[{"role":"user","content":"Why?"}]}')
    for path in ("/v1/files", "/v1/chat/completions"):
        for _ in range(2):
            await send(proxy.address + path, data=body, headers={"Content-Encoding": "gzip"})
        # Nobody here has read it, so both passed. (The teacher's own server decodes.)
        assert teacher.count(path) == 2
        assert teacher.calls[-1].json is not None
        assert teacher.calls[-1].headers["Content-Encoding"] == "gzip"


async def test_a_chunked_upload_stays_chunked(before_mirror: RunningProxy, mirror: Mirror, http: Any) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"piece%d" % number

    async with http.post(f"{before_mirror.address}/v1/files", data=pieces()) as response:
        assert response.status == 200
    _, headers, body = mirror.request()
    names = {name.lower() for name, _ in headers}
    assert "transfer-encoding" in names
    assert "content-length" not in names
    assert b"".join(body.split(b"\r\n")[1::2]) == b"piece0piece1piece2"


async def test_a_chunked_question_is_a_question(
    teacher: ScriptedTeacher, proxy: RunningProxy, http: Any, send: Any, question: dict[str, Any], client_key: str
) -> None:
    import json

    text = json.dumps(question).encode()

    async def pieces() -> AsyncIterator[bytes]:
        yield text[:10]
        yield text[10:]

    url = f"{proxy.base_url}/chat/completions"
    async with http.post(url, data=pieces(), headers={"Authorization": f"Bearer {client_key}"}) as response:
        first = await response.read()
    assert (await send(url, question)).body == first
    assert teacher.count() == 1


async def test_an_upload_is_streamed_not_gathered(teacher: ScriptedTeacher, proxy: RunningProxy, http: Any) -> None:
    """More than the body limit passes where no body has to be read."""
    size = 80 << 20

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size >> 20):
            yield bytes(1 << 20)

    headers = {"Content-Length": str(size), "Authorization": "Bearer any"}
    async with http.put(f"{proxy.address}/v1/uploads/x", data=pieces(), headers=headers) as response:
        await response.read()
    assert len(teacher.calls[-1].body) == size


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/x", "/v1/files"])
async def test_a_get_may_have_a_body(before_mirror: RunningProxy, mirror: Mirror, send: Any, path: str) -> None:
    got = await send(before_mirror.address + path, method="GET", data=b"body")
    assert got.status == 200
    line, _, body = mirror.request()
    assert (line, body) == (f"GET {path} HTTP/1.1", b"body")


async def test_expect_100_is_answered_here(before_mirror: RunningProxy, mirror: Mirror, exchange: Any) -> None:
    reply = await exchange(
        before_mirror.address,
        b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nConnection: close\r\n"
        b"Content-Length: 3\r\n\r\nabc",
    )
    assert reply.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert mirror.request()[2] == b"abc"


# -- the answer -----------------------------------------------------------------------------------------------------


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


async def test_redirects_are_the_clients_to_follow(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, question: Any
) -> None:
    for path in ("/v1/files", "/v1/chat/completions"):
        for status in (301, 302, 307, 308):
            teacher.script(Redirect("http://127.0.0.1:1/elsewhere", status))
            got = await send(proxy.address + path, question)
            assert (got.status, got.headers["Location"]) == (status, "http://127.0.0.1:1/elsewhere")
    assert teacher.count() == 8


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
