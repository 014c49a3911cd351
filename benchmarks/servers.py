"""The other ends: `bare`, `relay` (the two baselines), `teacher`, and `stock` (kdproxy on asyncio's own loop).

Each prints `listening on URL` once it does.
"""

import argparse
import asyncio
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import aiohttp
import work
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_NUMBER = re.compile(rb"Question (\d{9})")
_HOP_BY_HOP = frozenset({"connection", "content-length", "host", "keep-alive", "transfer-encoding"})


def bare() -> web.Application:
    """aiohttp's Application with a handler that reads the body and returns constant bytes."""
    body = work.reply_body().fill(0)

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=body, content_type="application/json")

    return _application(answer)


def relay(upstream: str) -> web.Application:
    """aiohttp's Application in front of aiohttp's client: what a proxy costs that does nothing."""
    session = web.AppKey("session", aiohttp.ClientSession)

    async def client(app: web.Application) -> AsyncIterator[None]:
        app[session] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        yield
        await app[session].close()

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        async with request.app[session].post(upstream + request.path_qs, data=body, headers=headers) as response:
            kept = {name: value for name, value in response.headers.items() if name.lower() not in _HOP_BY_HOP}
            if response.content_length is not None:
                return web.Response(status=response.status, body=await response.read(), headers=kept)
            streamed = web.StreamResponse(status=response.status, headers=kept)
            await streamed.prepare(request)
            async for chunk in response.content.iter_any():
                await streamed.write(chunk)
            await streamed.write_eof()
            return streamed

    app = _application(answer)
    app.cleanup_ctx.append(client)
    return app


def _application(handler: Handler) -> web.Application:
    app = web.Application()
    app.router.add_post(work.PATH, handler)
    return app


async def _serve(app: web.Application) -> None:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    _announce(runner.addresses[0][1])
    await asyncio.Event().wait()


class Teacher(asyncio.Protocol):
    """A server of its own, some 15 us a request, so that the teacher is not what is measured."""

    reply = work.reply_body()
    events = work.reply_events()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: req_%s\r\nContent-Length: %d\r\n\r\n"
    stream_head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

    def __init__(self, loop: asyncio.AbstractEventLoop, latency_seconds: float, event_seconds: float) -> None:
        self._loop = loop
        self._latency_seconds = latency_seconds
        self._event_seconds = event_seconds
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        end = data.find(b"\r\n\r\n")
        found = _LENGTH.search(data, 0, end + 2) if end >= 0 else None
        if found is None or len(data) < end + 4 + int(found[1]):
            self._buffer = data
            return
        self._buffer = b""
        number = _NUMBER.search(data, end)
        assert number is not None
        answer = self._stream if b'"stream":true' in data else self._answer
        if self._latency_seconds:
            self._loop.call_later(self._latency_seconds, answer, int(number[1]))
        else:
            answer(int(number[1]))

    def _answer(self, number: int) -> None:
        body = self.reply.fill(number)
        self._transport.write(self.head % (work.number_text(number), len(body)) + body)

    def _stream(self, number: int, position: int = 0) -> None:
        event = self.events[position].fill(number)
        chunk = b"%x\r\n%s\r\n" % (len(event), event)
        self._transport.write(chunk if position else self.stream_head + chunk)
        if position + 1 < len(self.events):
            self._loop.call_later(self._event_seconds, self._stream, number, position + 1)
        else:
            self._transport.write(b"0\r\n\r\n")


async def _teach(latency_seconds: float, event_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Teacher(loop, latency_seconds, event_seconds), "127.0.0.1", 0)
    _announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _announce(port: int) -> None:
    print(f"listening on http://127.0.0.1:{port}", flush=True)


def _stock(arguments: list[str]) -> None:
    sys.modules["uvloop"] = None  # type: ignore[assignment]  # what Python documents as: importing it fails
    from kdproxy.cli.main import main as command

    sys.argv = ["kdproxy", *arguments]
    command()


def main() -> None:
    if sys.argv[1:2] == ["stock"]:
        _stock(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("bare", "relay", "teacher"))
    parser.add_argument("--upstream", default="")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--event-ms", type=float, default=0.0)
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):
        match options.role:
            case "bare":
                asyncio.run(_serve(bare()))
            case "relay":
                asyncio.run(_serve(relay(options.upstream)))
            case _:
                asyncio.run(_teach(options.latency_ms / 1e3, options.event_ms / 1e3))


if __name__ == "__main__":
    main()
