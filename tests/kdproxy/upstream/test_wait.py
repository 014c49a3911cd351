"""Waiting for an answer's next bytes up to a moment: nothing is read, nothing is lost, and deadlines run on."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kdproxy.core.ports import UpstreamRequest
from kdproxy.errors import UpstreamFailed
from kdproxy.upstream.http import HttpResponse, HttpUpstream

pytestmark = pytest.mark.asyncio

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
SOON, LONG = 0.02, 30.0


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@asynccontextmanager
async def answered(
    *, headers: bytes = b"", read_seconds: float = LONG
) -> AsyncIterator[tuple[HttpResponse, asyncio.StreamWriter]]:
    """A response whose head has come, and the server's end of its connection."""
    writers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + headers + b"\r\n")
        await writers.put(writer)

    upstream = HttpUpstream(
        connect_seconds=LONG, first_byte_seconds=LONG, read_seconds=read_seconds, total_seconds=LONG
    )
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x"
        response = await upstream.send(UpstreamRequest(method="POST", url=url, headers=(), body=b""))
        writer = await writers.get()
        yield response, writer
        response.close()
        writer.close()
        await upstream.close()


def later(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_a_wait_that_ends_in_vain_loses_nothing() -> None:
    async with answered() as (response, writer):
        assert not await response.wait(later(SOON))
        writer.write(chunk(b"first"))
        assert await response.wait(later(LONG))
        assert await response.wait(later(-1.0)), "what is there is there after the time, too"
        assert await response.chunk() == b"first"
        assert not await response.wait(later(SOON))
        writer.write(chunk(b"second") + b"0\r\n\r\n")
        assert await response.read(100) == b"second"


async def test_the_end_and_a_cut_end_a_wait() -> None:
    async with answered() as (response, writer):
        writer.write(b"0\r\n\r\n")
        assert await response.wait(later(LONG))
        assert await response.chunk() == b""
    async with answered() as (response, writer):
        writer.transport.abort()
        assert await response.wait(later(LONG))
        with pytest.raises(UpstreamFailed):
            await response.chunk()


async def test_a_wait_makes_no_task() -> None:
    async with answered() as (response, _):
        before, meanwhile = len(asyncio.all_tasks()), list[int]()
        asyncio.get_running_loop().call_soon(lambda: meanwhile.append(len(asyncio.all_tasks())))
        await response.wait(later(SOON))
        assert meanwhile == [before]


async def test_the_deadline_between_bytes_runs_from_the_first_wait() -> None:
    async with answered(read_seconds=5 * SOON) as (response, _):
        began = asyncio.get_running_loop().time()
        assert not await response.wait(later(SOON))
        assert await response.wait(later(LONG))
        with pytest.raises(UpstreamFailed) as failed:
            await response.chunk()
        assert failed.value.code == "between_bytes_timeout"
        assert asyncio.get_running_loop().time() - began < LONG / 2


async def test_coded_bytes_that_say_nothing_yet_do_not_end_a_wait() -> None:
    coded = gzip.compress(b"text")
    async with answered(headers=b"Content-Encoding: gzip\r\n") as (response, writer):
        writer.write(chunk(coded[:10]))
        assert not await response.wait(later(SOON))
        writer.write(chunk(coded[10:]))
        assert await response.wait(later(LONG))
        writer.write(b"0\r\n\r\n")
        assert await response.read(100) == b"text"


async def test_damaged_coded_bytes_fail_a_wait() -> None:
    async with answered(headers=b"Content-Encoding: gzip\r\n") as (response, writer):
        writer.write(chunk(b"this is not gzip"))
        with pytest.raises(UpstreamFailed):
            await response.wait(later(LONG))
