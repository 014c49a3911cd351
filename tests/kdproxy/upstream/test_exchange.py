"""Whole bodies over aiohttp's connections: what goes out, what is the answer, which connection is used again."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from kdproxy.upstream import connector
from kdproxy.upstream.connection import CutOff, StrayResponse
from kdproxy.upstream.exchange import Exchange, Exchanges, HeadTooLate
from kdproxy.upstream.framing import BadFraming

pytestmark = pytest.mark.asyncio

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Send = Callable[..., Awaitable[Exchange]]


@dataclass
class Server:
    """Reads each request's head and says what it was told to say; `reads_body` False: it leaves the rest unread."""

    answer: bytes = ANSWER
    reads_body: bool = True
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                if not self.reads_body:
                    writer.write(self.answer)
                    await self.over.wait()
                    return
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.bodies.append(await reader.readexactly(length))
                writer.write(self.answer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@pytest.fixture(autouse=True)
def no_quarantine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector, "QUARANTINE_SECONDS", 0.0)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    found = Server()
    listening = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    async with listening:
        found.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1/chat?a=%2F"
        yield found
        found.over.set()


@pytest_asyncio.fixture
async def send(server: Server) -> AsyncIterator[Send]:
    exchanges = Exchanges(head_seconds=0.5, connect_seconds=5.0)

    async def post(body: bytes = b"{}", **headers: str) -> Exchange:
        return await exchanges.send("POST", server.url, tuple(headers.items()), body)

    yield post
    await exchanges.close()


async def whole(exchange: Exchange) -> bytes:
    body = b""
    while chunk := await exchange.read():
        body += chunk
    exchange.close()
    return body


@pytest.mark.parametrize("size", [0, 2, 70_000])
async def test_what_goes_out(server: Server, send: Send, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert await whole(await send(body, **{"X-One": "1", "x-one": "2"})) == b"ok"
    start, *headers = server.heads[0].decode().removesuffix("\r\n\r\n").split("\r\n")
    assert start == "POST /v1/chat?a=%2F HTTP/1.1"
    host = server.url.split("/")[2]
    assert headers == [
        *(f"Host: {host}", "X-One: 1", "x-one: 2", "Accept-Encoding: identity", f"Content-Length: {size}")
    ]
    assert server.bodies == [body]


async def test_header_bytes_that_are_not_utf_8_go_out_as_they_came(server: Server, send: Send) -> None:
    await whole(await send(**{"X-Name": b"caf\xe9 \xc3\xa9".decode("utf-8", "surrogateescape")}))
    assert b"\r\nX-Name: caf\xe9 \xc3\xa9\r\n" in server.heads[0]


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\nb", "a\r", "a\r\n"])
async def test_no_header_can_begin_another_one(server: Server, send: Send, value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        await send(Authorization=value)
    assert not server.connections


async def test_a_connection_is_used_again_after_a_whole_answer(server: Server, send: Send) -> None:
    for _ in range(3):
        assert await whole(await send()) == b"ok"
    assert server.connections == 1


async def test_a_connection_rests_after_an_answer(server: Server, send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a faulty gateway says too much comes soon: no other question may be on the connection then."""
    monkeypatch.setattr(connector, "QUARANTINE_SECONDS", 60.0)
    for _ in range(3):
        assert await whole(await send()) == b"ok"
    assert server.connections == 3


async def test_bytes_that_the_kernel_holds_are_no_answer_to_what_is_written_next() -> None:
    """Between the loop's last look and the write nothing is awaited, so only the kernel knows of them."""
    exchanges = Exchanges(head_seconds=5.0, connect_seconds=5.0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5.0)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        asking = asyncio.ensure_future(exchanges.send("GET", url, (), None))
        first, _ = await asyncio.to_thread(listening.accept)
        await asyncio.to_thread(first.recv, 65_536)
        first.sendall(ANSWER)
        assert await whole(await asking) == b"ok"
        first.sendall(ANSWER.replace(b"ok", b"no"))  # the loop has not read it when it sends the next one
        asking = asyncio.ensure_future(exchanges.send("GET", url, (), None))
        second, _ = await asyncio.to_thread(listening.accept)
        await asyncio.to_thread(second.recv, 65_536)
        second.sendall(ANSWER)
        assert await whole(await asking) == b"ok"
        first.close()
        second.close()
    await exchanges.close()


@pytest.mark.parametrize(("status", "is_ours"), [("200 OK", False), ("302 Found", False), ("413 X", True)])
async def test_only_an_error_may_come_before_the_whole_request_is_there(
    server: Server, send: Send, status: str, is_ours: bool
) -> None:
    server.reads_body, server.answer = False, ANSWER.replace(b"200 OK", status.encode())
    if is_ours:
        assert await whole(await send(b"x" * (32 << 20))) == b"ok"
    else:
        with pytest.raises(StrayResponse):
            await send(b"x" * (32 << 20))


async def test_an_upstream_that_said_too_much_once_gets_a_connection_for_each_request(
    server: Server, send: Send, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", logger="kdproxy.upstream")
    server.answer = ANSWER + ANSWER
    await whole(await send())
    server.answer = ANSWER
    for _ in range(3):
        await whole(await send())
    assert server.connections == 4
    assert [record.message for record in caplog.records if "a response to no request" in record.message]


async def test_interim_answers_without_end_are_no_answer(server: Server, send: Send) -> None:
    server.answer = b"HTTP/1.1 102 Processing\r\n\r\n" * 1_001
    with pytest.raises(BadFraming, match="interim responses"):
        await send()


async def test_interim_answers_are_passed_over(server: Server, send: Send) -> None:
    server.answer = b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + ANSWER
    exchange = await send()
    assert (exchange.status, await whole(exchange)) == (200, b"ok")


async def test_a_head_that_does_not_come_ends_the_connection(server: Server, send: Send) -> None:
    server.answer = b"HTTP/1.1 200"
    with pytest.raises(HeadTooLate):
        await send()
    server.answer = ANSWER
    assert await whole(await send()) == b"ok"
    assert server.connections == 2


async def test_what_is_no_http_is_an_error(server: Server, send: Send) -> None:
    server.answer = b"SSH-2.0-OpenSSH_9.6\r\n\r\n"
    with pytest.raises(BadFraming):
        await send()


async def test_a_cancelled_request_ends_its_connection(server: Server, send: Send) -> None:
    server.answer = b""
    asking = asyncio.ensure_future(send())
    while not server.bodies:
        await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    server.answer = ANSWER
    assert await whole(await send()) == b"ok"
    assert server.connections == 2


async def test_a_connection_that_has_not_sent_all_is_not_used_again(server: Server, send: Send) -> None:
    """The provider answered before it had read the request: the rest of it would be read as the next one."""
    server.reads_body = False
    server.answer = ANSWER.replace(b"200 OK", b"413 Too Large")
    assert await whole(await send(b"x" * (32 << 20))) == b"ok"
    server.reads_body, server.answer = True, ANSWER
    assert await whole(await send()) == b"ok"
    assert server.connections == 2
    assert server.bodies == [b"{}"]


async def test_closing_wakes_who_waits_for_the_body(server: Server, send: Send) -> None:
    server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"
    exchange = await send()
    assert await exchange.read() == b"ok"
    waiting = asyncio.ensure_future(exchange.read())
    await asyncio.sleep(0)
    exchange.close()
    with pytest.raises(CutOff):
        await waiting
