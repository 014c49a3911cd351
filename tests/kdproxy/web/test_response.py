"""Replies in pieces over real sockets: what goes out, when, and what a cut looks like."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from kdproxy.web.response import ComposedStream, StreamReply, stream_reply

pytestmark = pytest.mark.asyncio

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]

PAIRS = (("Content-Type", "text/event-stream"),)
POST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"


@asynccontextmanager
async def asking(handler: Handler) -> AsyncIterator[Client]:
    server = await asyncio.get_running_loop().create_server(web.Server(handler), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=1 << 20)
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()


async def test_pieces_are_chunked_and_the_connection_continues() -> None:
    pieces = (b"data: a\n\n", b"", b"x" * 200_000, b"z")

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = stream_reply(request, status=200, headers=PAIRS, length=None)
        assert isinstance(response, ComposedStream)
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        await response.write_eof()
        return response

    async with asking(handler) as (reader, writer):
        for _ in range(2):
            writer.write(POST)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
            )
            body = await reader.readuntil(b"\r\n0\r\n\r\n")
            assert body == b"9\r\ndata: a\n\n\r\n30d40\r\n" + b"x" * 200_000 + b"\r\n1\r\nz\r\n0\r\n\r\n"


async def test_a_head_alone_does_not_wait_for_a_piece() -> None:
    may_end = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = stream_reply(request, status=200, headers=PAIRS, length=None)
        await response.prepare(request)
        await may_end.wait()
        return response

    async with asking(handler) as (reader, writer):
        writer.write(POST)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        may_end.set()
        assert await reader.readexactly(5) == b"0\r\n\r\n"


@pytest.mark.parametrize("piece", [b"", b"data: a\n\n"])
async def test_a_cut_has_a_head_and_no_end(piece: bytes) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = stream_reply(request, status=200, headers=PAIRS, length=None)
        await response.prepare(request)
        await response.write(piece)
        response.flush()
        assert request.transport is not None
        request.transport.close()
        return response

    async with asking(handler) as (reader, writer):
        writer.write(POST)
        got = await reader.read()
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")
        assert got.endswith(b"\r\n\r\n" if not piece else b"9\r\ndata: a\n\n\r\n")
        assert not got.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "version", "length"), [("GET", "1.1", None), ("POST", "1.0", None), ("POST", "1.1", 3)]
)
async def test_what_leaves_framing_in_question_is_aiohttps(method: str, version: str, length: int | None) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = stream_reply(request, status=200, headers=PAIRS, length=length)
        assert isinstance(response, StreamReply)
        await response.prepare(request)
        await response.write(b"abc")
        await response.write_eof()
        return response

    async with asking(handler) as (reader, writer):
        writer.write(
            f"{method} /x HTTP/{version}\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
        )
        assert b"abc" in await reader.read()
