"""Total pass-through: whatever is no question goes to the teacher as it came, and its answer back as it came."""

import gzip
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kdproxy.testing.proxy import RunningProxy
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection"}

Mirror = Any
"""The server of conftest.py that remembers raw requests and answers with raw bytes."""


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


async def test_only_hop_by_hop_headers_are_taken_out_and_only_the_mark_of_the_way_is_added(
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
    mark = next(value for name, value in names if name == "cdn-loop")
    assert re.fullmatch(r"kdproxy-[0-9a-f]{16}", mark)
    assert names == [
        ("accept-encoding", "identity"),
        ("authorization", "Bearer abc"),
        ("cdn-loop", mark),
        ("content-length", str(len(body))),
        ("cookie", "a=b"),
        ("host", mirror.url.removeprefix("http://")),
        ("user-agent", "script/1"),
        ("x-empty", ""),
        ("x-one", "1"),
        ("x-one", "2"),
    ]


async def test_a_question_gets_no_other_header_either(
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
        *("accept-encoding", "cdn-loop", "content-length", "content-type", "host", "x-a"),
    }


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files"])
async def test_a_caches_directives_are_forwarded_and_our_own_headers_are_not(
    before_mirror: RunningProxy, mirror: Mirror, send: Any, path: str
) -> None:
    ours = {"Kdproxy-Mode": "refresh", "Kdproxy-Run": "r", "Kdproxy-Sample": "1"}
    await send(before_mirror.address + path, {"messages": []}, headers={"Cache-Control": "no-cache", **ours})
    _, headers, _ = mirror.request()
    assert ("Cache-Control", "no-cache") in headers
    assert not [name for name, _ in headers if name.lower().startswith("kdproxy")]


async def test_header_bytes_beyond_ascii_go_through(before_mirror: RunningProxy, mirror: Mirror, exchange: Any) -> None:
    for value, sent in (("naïve\u00a0x".encode(), "naïve\u00a0x".encode()), (b"caf\xe9", "café".encode())):
        # They go up as they came. aiohttp's server writes UTF-8 only: on the way back other bytes are taken for
        # Latin-1, as HTTP did long ago, so no letter is lost.
        mirror.answer = b"HTTP/1.1 200 OK\r\nX-Back: " + value + b"\r\nContent-Length: 0\r\n\r\n"
        reply = await exchange(
            before_mirror.address,
            b"GET /v1/files HTTP/1.1\r\nHost: localhost\r\nX-There: " + value + b"\r\nConnection: close\r\n\r\n",
        )
        assert b"X-There: " + value + b"\r\n" in mirror.requests[-1]
        assert b"X-Back: " + sent + b"\r\n" in reply


async def test_a_gzipped_body_is_forwarded_gzipped(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
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
