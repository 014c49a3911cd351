"""A request whose body is there, on a connection of aiohttp's pool: one write, head composed here, and one read.

What aiohttp's session does besides (cookies, redirects, credentials of a URL, tracing, a task that writes the body, an
object for each) is of no use to a proxy and takes 60 us of CPU a call, an eighth of a miss. Pool, names, TLS and the
parser are aiohttp's own.
"""

import asyncio
from functools import lru_cache

import aiohttp
from aiohttp.connector import Connection
from aiohttp.helpers import TimerNoop
from multidict import CIMultiDictProxy
from yarl import URL

from kdproxy.core.models import HeaderPairs

MAX_HEADER_BYTES = 65_536
READ_BUFFER_BYTES = 1 << 18
_ONE_WRITE_BYTES = 65_536
_NO_TIMER = TimerNoop()


class HeadTooLate(TimeoutError):
    """The answer did not begin in time."""


class Exchange:
    """The answer's head, and its body as it comes: what is used of an aiohttp.ClientResponse."""

    def __init__(
        self, connection: Connection, status: int, headers: "CIMultiDictProxy[str]", content: aiohttp.StreamReader
    ) -> None:
        self._connection = connection
        self.status = status
        self.headers = headers
        self.content = content

    def release(self) -> None:
        """Give the connection back to the pool; the body was read to its end."""
        transport = self._connection.transport
        if transport is not None and transport.get_write_buffer_size():
            self._connection.close()  # it was answered before all of it was sent
        else:
            self._connection.release()

    def close(self) -> None:
        """Close the connection. Who waits for the body gets an aiohttp.ClientConnectionError."""
        if self.content.exception() is None:
            self.content.set_exception(aiohttp.ClientConnectionError("the connection is closed"))
        self._connection.close()


class Exchanges:
    """Sends over the connections of a session."""

    def __init__(self, session: aiohttp.ClientSession, *, head_seconds: float, connect_seconds: float) -> None:
        assert session.connector is not None
        self._connector = session.connector
        self._head_seconds = head_seconds
        self._timeout = aiohttp.ClientTimeout(total=None, connect=head_seconds, sock_connect=connect_seconds)

        @lru_cache(maxsize=256)
        def way(method: str, url: str) -> tuple[aiohttp.ClientRequest, str]:
            # The pool asks a request where it goes; this one is never sent.
            asker = aiohttp.ClientRequest(
                method, URL(url, encoded=True), loop=asyncio.get_running_loop(), session=session
            )
            return asker, f"{asker.method} {asker.url.raw_path_qs} HTTP/1.1\r\nHost: {asker.headers['Host']}\r\n"

        self._way = way

    async def send(self, method: str, url: str, headers: HeaderPairs, body: bytes) -> Exchange:
        """Send a request and return when the answer's head is there.

        Args:
            headers: all that go out but for Host, Accept-Encoding and Content-Length.

        Raises:
            aiohttp.ConnectionTimeoutError: no connection in time.
            HeadTooLate: no head in time.
            aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError: no connection, it broke, or what came is
                no HTTP.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._head_seconds
        asker, start = self._way(method, url)
        head = _head(start, headers, len(body))
        try:
            connection = await self._connector.connect(asker, traces=[], timeout=self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError from error
        protocol = connection.protocol
        assert protocol is not None
        timer = loop.call_at(ends_at, protocol.set_exception, HeadTooLate())
        try:
            protocol.set_response_params(
                timer=_NO_TIMER,
                read_until_eof=True,
                auto_decompress=False,
                read_bufsize=READ_BUFFER_BYTES,
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
            )
            _write(connection, head, body)
            message, content = await protocol.read()
            while message.code < 200:
                # Interim (RFC 9110 section 15.2): the answer is still to come.
                message, content = await protocol.read()
        except BaseException:
            connection.close()
            raise
        finally:
            timer.cancel()
        return Exchange(connection, message.code, message.headers, content)


def _head(start: str, headers: HeaderPairs, length: int) -> bytes:
    lines = [start, *[f"{name}: {value}\r\n" for name, value in headers]]
    lines.append(f"Accept-Encoding: identity\r\nContent-Length: {length}\r\n\r\n")
    text = "".join(lines)
    # Two in the first line, three in the last one.
    breaks = len(headers) + 5
    if text.count("\r") != breaks or text.count("\n") != breaks:
        raise ValueError("a header holds a line break")  # a configured credential may
    # As it came: aiohttp's parser keeps bytes that are not UTF-8 as lone surrogates.
    return text.encode("utf-8", "surrogateescape")


def _write(connection: Connection, head: bytes, body: bytes) -> None:
    transport = connection.transport
    if transport is None:
        raise aiohttp.ServerDisconnectedError
    if len(body) <= _ONE_WRITE_BYTES:
        transport.write(head + body)
    else:
        transport.writelines((head, body))
