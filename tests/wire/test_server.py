"""The helper itself: what a play sends is what a peer gets."""

import asyncio

import pytest

from tests.wire import Aside, Gap, HalfClose, Heartbeat, Reset, Unread, WireServer, answer

pytestmark = pytest.mark.asyncio

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


async def opened(server: WireServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))


async def test_requests_take_the_plays_in_turn_and_are_recorded() -> None:
    async with WireServer([answer(b"1")], [lambda request: answer(request.body)]) as server:
        reader, writer = await opened(server)
        writer.write(GET)
        assert await reader.readexactly(len(answer(b"1"))) == answer(b"1")
        writer.write(b"POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\n" + GET)
        assert await reader.readexactly(len(answer(b"abc") + answer(b""))) == answer(b"abc") + answer(b"")
        assert [(request.line.split()[0], request.path) for request in server.requests] == [
            *(("GET", "/a"), ("POST", "/b"), ("GET", "/a"))
        ]
        assert (server.requests[0].headers, server.connections) == ({"host": "x"}, 1)
        writer.close()
        await server.wait_for_connections(0)


async def test_ends_of_a_connection() -> None:
    async with WireServer([b"x", Gap(), Reset()], [b"y", HalfClose()]) as server:
        reader, writer = await opened(server)
        writer.write(GET)
        with pytest.raises(ConnectionResetError):
            await reader.read(-1)
        writer.close()
        reader, writer = await opened(server)
        writer.write(GET)
        assert await reader.read(-1) == b"y"
        writer.write(GET)  # it still reads
        await server.wait_for_requests(3)
        writer.close()


async def test_steps_beside_and_without_end() -> None:
    event = asyncio.Event()
    async with WireServer([b"a", Aside(event, b"late")], [Heartbeat(b".")], greeting=[b"hello"]) as server:
        reader, writer = await opened(server)
        assert await reader.readexactly(5) == b"hello"
        writer.write(GET)
        assert await reader.readexactly(1) == b"a"
        event.set()
        assert await reader.readexactly(4) == b"late"
        writer.write(GET)
        assert await reader.readexactly(3) == b"..."
        writer.close()
        await server.wait_for_connections(0)


async def test_a_body_may_stay_unread() -> None:
    async with WireServer(Unread(answer(b"no", status="413 X"))) as server:
        reader, writer = await opened(server)
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 999\r\n\r\n")
        assert (await reader.readexactly(12)) == b"HTTP/1.1 413"
        writer.close()


async def test_a_function_decides_by_the_request() -> None:
    async with WireServer(lambda request: [answer(request.path.encode())]) as server:
        reader, writer = await opened(server)
        writer.write(GET)
        assert (await reader.readexactly(len(answer(b"/a")))).endswith(b"/a")
        writer.close()
