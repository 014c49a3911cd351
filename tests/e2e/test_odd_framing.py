"""Answers whose framing is odd: taken where it is clear where they end, else failed once and never bought again."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from kdproxy.testing.proxy import run_proxy
from tests.wire import Close, Gap, WireServer, chat_body, chunked

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": "Why?"}]}
BODY = orjson.dumps(chat_body())
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = chunked(BODY[:40], BODY[40:], end=True)


def whole(*lines: bytes, body: bytes = BODY, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return status + b"\r\nContent-Type: application/json\r\n" + b"".join(lines) + b"\r\n" + body


TAKEN = {
    "a length twice": [whole(LENGTH, LENGTH)],
    "a length twice in one line": [whole(b"Content-Length: %d, %d\r\n" % (len(BODY), len(BODY)))],
    "a length beside chunked": [whole(b"Content-Length: 3\r\n", CHUNKED, body=CHUNKS)],
    "chunked twice": [whole(CHUNKED, CHUNKED, body=CHUNKS)],
    "a space before a colon": [whole(b"X-Odd : 1\r\n", LENGTH.replace(b":", b" :"))],
    "a header of 70 KB": [whole(b"X-Long: " + b"x" * 70_000 + b"\r\n", LENGTH)],
    "no last chunk": [whole(CHUNKED, body=chunked(BODY)), Close()],
    "no last chunk, the close later": [whole(CHUNKED, body=chunked(BODY)), Gap(), Close()],
    "a last chunk without its empty line": [whole(CHUNKED, body=chunked(BODY) + b"0\r\n"), Close()],
    "line feeds alone": [whole(LENGTH).replace(b"\r\n", b"\n")],
    "a folded header": [whole(b"X-Odd: a\r\n b\r\n", LENGTH)],
    "HTTP/1.0 up to its close": [whole(status=b"HTTP/1.0 200 OK"), Close()],
    "no reason": [whole(LENGTH, status=b"HTTP/1.1 200")],
    "spaces after the sizes": [whole(CHUNKED, body=b"%x  \r\n%b\r\n0  \r\n\r\n" % (len(BODY), BODY))],
    "trailers": [whole(CHUNKED, body=chunked(BODY) + b"0\r\nX-Sum: 1\r\n\r\n")],
    "an identity coding": [whole(b"Transfer-Encoding: identity\r\n", LENGTH)],
    "a length that ends before the bytes do": [whole(LENGTH, body=BODY + b"\r\n")],
}


@pytest.mark.parametrize("play", TAKEN.values(), ids=TAKEN)
async def test_a_clear_one_is_bought_once(play: list[Any], send: Any, tmp_path: Path) -> None:
    async with WireServer(play) as upstream, run_proxy(upstream.url, data_dir=tmp_path / "data") as proxy:
        for cache in ("fwd=miss", "hit"):
            got = await send(proxy.address + CHAT, ASK)
            assert (got.status, got.body) == (200, BODY)
            assert cache in got.cache
        assert len(upstream.requests) == 1


REFUSED = {
    "two lengths": ([whole(LENGTH, b"Content-Length: 3\r\n")], "bad_framing"),
    "a length that is no number": ([whole(b"Content-Length: many\r\n")], "bad_framing"),
    "another coding": ([whole(b"Transfer-Encoding: gzip, chunked\r\n", body=CHUNKS)], "bad_framing"),
    "a broken size": ([whole(CHUNKED, body=chunked(BODY[:40]) + b"zz\r\n")], "bad_framing"),
    "a chunk longer than its size": ([whole(CHUNKED, body=b"3\r\n" + BODY + b"\r\n0\r\n\r\n")], "bad_framing"),
    "a line without a colon": ([whole(b"nonsense\r\n", LENGTH)], "bad_framing"),
    "HTTP/2": ([whole(LENGTH, status=b"HTTP/2 200")], "bad_framing"),
}


@pytest.mark.parametrize(("play", "code"), REFUSED.values(), ids=REFUSED)
async def test_an_unclear_one_fails_once(play: list[Any], code: str, send: Any, tmp_path: Path) -> None:
    async with WireServer(play) as upstream, run_proxy(upstream.url, data_dir=tmp_path / "data") as proxy:
        got = await send(proxy.address + CHAT, ASK)
        assert (got.status, got.headers["x-should-retry"]) == (502, "false")
        assert orjson.loads(got.body)["error"]["code"] == code
        assert len(upstream.requests) == 1


async def test_what_passes_through_is_cut_where_its_end_is_missing(exchange: Any) -> None:
    """HTTP says so by a missing last chunk, and so does the proxy."""
    play = [whole(CHUNKED, body=chunked(BODY)), Close()]
    async with WireServer(play) as upstream, run_proxy(upstream.url) as proxy:
        raw = await exchange(proxy.address, b"GET /v1/files/1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert BODY in raw
    assert not raw.endswith(b"0\r\n\r\n")


async def test_a_header_that_clients_refuse_is_not_passed_on(send: Any) -> None:
    async with (
        WireServer([whole(b"X-Long: " + b"x" * 9_000 + b"\r\nX-Short: 1\r\n", LENGTH)]) as upstream,
        run_proxy(upstream.url) as proxy,
    ):
        got = await send(proxy.address + CHAT, ASK)
        assert (got.headers.get("X-Long"), got.headers["X-Short"]) == (None, "1")
