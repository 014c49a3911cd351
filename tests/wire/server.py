"""The server that plays: asyncio over raw sockets, HTTP/1.1 requests in, exact bytes out."""

import asyncio
import contextlib
import inspect
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

WAIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Reset:
    """End the connection with RST."""


@dataclass(frozen=True, slots=True)
class HalfClose:
    """Send FIN and go on reading."""


@dataclass(frozen=True, slots=True)
class Close:
    """Send FIN and read nothing more."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Let what was sent leave as a packet of its own."""

    seconds: float = 0.02


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Send bytes again and again until the peer leaves."""

    data: bytes
    every_seconds: float = 0.02


@dataclass(frozen=True, slots=True, init=False)
class Aside:
    """Do steps beside what follows."""

    steps: tuple[Any, ...]

    def __init__(self, *steps: Any) -> None:
        object.__setattr__(self, "steps", steps)


class Unread(tuple[Any, ...]):
    """A play that begins when the head is there: the body is never read, and the connection ends after it."""

    def __new__(cls, *steps: Any) -> "Unread":
        """Take the steps."""
        return super().__new__(cls, steps)


Play = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came."""

    raw_head: bytes
    body: bytes
    connection: int
    """Number of its connection, from 1."""
    at: float
    """Loop time at which it was read."""

    @property
    def raw(self) -> bytes:
        """All its bytes; those of a chunked body decoded."""
        return self.raw_head + self.body

    @property
    def line(self) -> str:
        """Its first line."""
        return self.raw_head.partition(b"\r\n")[0].decode("latin-1")

    @property
    def path(self) -> str:
        """The target of its first line."""
        return self.line.split(" ")[1]

    @property
    def headers(self) -> dict[str, str]:
        """Its headers by name in small letters; the last one of a name wins."""
        lines = self.raw_head.decode("latin-1").split("\r\n")[1:-2]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


class Connection:
    """One connection, as a play's own functions get it."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer
        self.is_over = False

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """End it with RST."""
        found = self.writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        self.is_over = True

    def close(self) -> None:
        """End it with FIN."""
        self.writer.close()
        self.is_over = True


class WireServer:
    """Plays its script while entered. See the package."""

    def __init__(
        self,
        *script: Play | Callable[[Request], Play],
        greeting: Play = (),
        ssl_context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.script = script
        self.greeting = greeting
        self.requests: list[Request] = []
        self.connections = 0
        self.open_connections = 0
        self.ended: set[int] = set()
        """Numbers of the connections that are over."""
        self.url = ""
        self._host = host
        self._ssl = ssl_context
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        self._played = 0

    @property
    def base_url(self) -> str:
        """URL as OpenAI's clients take it."""
        return f"{self.url}/v1"

    async def __aenter__(self) -> "WireServer":
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, self._host, 0, ssl=self._ssl, limit=1 << 20)
        scheme = "http" if self._ssl is None else "https"
        name = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"{scheme}://{name}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, and end every connection."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_for_requests(self, count: int) -> None:
        """Wait until so many requests have been read. Raises TimeoutError."""
        await self._wait(lambda: len(self.requests) >= count)

    async def wait_for_connections(self, count: int) -> None:
        """Wait until exactly so many connections are open. Raises TimeoutError."""
        await self._wait(lambda: self.open_connections == count)

    async def wait_for_end(self, connection: int) -> None:
        """Wait until the connection of that number is over. Raises TimeoutError."""
        await self._wait(lambda: connection in self.ended)

    async def _wait(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS), self._changed:
            await self._changed.wait_for(is_so)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open_connections += 1
        connection = Connection(self.connections, reader, writer)
        beside: list[asyncio.Task[None]] = []
        await self._tell()
        try:
            await self._perform(self.greeting, connection, None, beside)
            while not connection.is_over:
                await self._serve(connection, beside)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the peer has left, or the test is over
        finally:
            for other in beside:
                other.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            self.open_connections -= 1
            self.ended.add(connection.number)
            self._tasks.discard(task)
            with contextlib.suppress(OSError):
                writer.close()
            with contextlib.suppress(asyncio.CancelledError):
                await self._tell()

    async def _serve(self, connection: Connection, beside: list[asyncio.Task[None]]) -> None:
        head = await connection.reader.readuntil(b"\r\n\r\n")
        play = self._next(Request(head, b"", connection.number, 0.0)) if not callable(self.script[0]) else None
        is_read = not isinstance(play, Unread)
        body = await _body(connection.reader, head) if is_read else b""
        request = Request(head, body, connection.number, asyncio.get_running_loop().time())
        self.requests.append(request)
        await self._tell()
        await self._perform(self._next(request) if play is None else play, connection, request, beside)
        if not is_read:
            connection.close()

    def _next(self, request: Request) -> Play:
        first = self.script[0]
        if callable(first):
            found: Play = first(request)
            return found
        self._played += 1
        return cast(Play, self.script[min(self._played, len(self.script)) - 1])

    async def _perform(
        self, play: Play, connection: Connection, request: Request | None, beside: list[asyncio.Task[None]]
    ) -> None:
        for step in play:
            match step:
                case bytes():
                    await connection.send(step)
                case asyncio.Event():
                    await step.wait()
                case Gap():
                    await asyncio.sleep(step.seconds)
                case Heartbeat():
                    while True:
                        await connection.send(step.data)
                        await asyncio.sleep(step.every_seconds)
                case Aside():
                    beside.append(asyncio.create_task(self._perform(step.steps, connection, request, beside)))
                case HalfClose():
                    connection.writer.write_eof()
                case Reset():
                    connection.reset()
                case Close():
                    connection.close()
                case _ if inspect.iscoroutinefunction(step):
                    await step(connection, request)
                case _:
                    await connection.send(step(request))


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    lines = (line.partition(b":") for line in head.lower().split(b"\r\n"))
    fields = {name.strip(): value.strip() for name, _, value in lines}
    if fields.get(b"transfer-encoding") == b"chunked":
        parts = []
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
        return b"".join(parts)
    return await reader.readexactly(int(fields.get(b"content-length", b"0")))
