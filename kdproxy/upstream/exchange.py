"""A request and its answer on a pooled connection. The head is written here, with the body in one write.

aiohttp's connector resolves, connects, does TLS and pools; reading and writing is ours (`upstream/connection.py`,
`upstream/framing.py`), because aiohttp takes a second response on a pooled connection for the answer to the next
request, and fails whole answers whose framing is unusual.
"""

import asyncio
import base64
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from typing import Any

import aiohttp
from aiohttp.connector import Connection
from multidict import CIMultiDict
from yarl import URL

from kdproxy.core.models import HeaderPairs
from kdproxy.upstream.connection import CutOff, UpstreamConnection
from kdproxy.upstream.connector import Connector, TunnelRefused, is_shortage, wire_of
from kdproxy.upstream.framing import CloseBody, End, Head

log = logging.getLogger("kdproxy.upstream")

_ONE_WRITE_BYTES = 65_536
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "DELETE"})
"""Methods whose requests without a body carry no Content-Length (RFC 9110 section 8.6)."""

_SHORTAGE_SECONDS = 2.0
"""How long a call waits for a file descriptor. Then its client gets an error, which frees the client's descriptor."""
_SHORTAGE_WAIT_SECONDS = 0.1
_LOG_AGAIN_SECONDS = 60.0
_FRESH_SECONDS = 0.001


class HeadTooLate(TimeoutError):
    """The answer did not begin in time."""


class Unsent(Exception):
    """No byte of the request was sent. `__cause__` is the reason."""


class SpokeFirst(Exception):
    """The server sends bytes on each new connection before any request."""


class Exchange:
    """The answer's head, and its body as it arrives."""

    def __init__(self, connection: Connection, wire: UpstreamConnection, head: Head) -> None:
        self._connection = connection
        self._wire = wire
        self._body = head.body
        self.status = head.status
        self.headers: CIMultiDict[str] = head.headers
        self.length = head.length
        """Length of the body in bytes, if the head gives it."""
        self.is_end_marked = not isinstance(head.body, CloseBody)
        """Whether the head announces an end other than the end of the connection."""
        self.read_nowait = wire.read_nowait
        self.read = wire.read
        self.wait = wire.wait
        self._is_done = False

    @property
    def end(self) -> End:
        """Whether and how the body has ended."""
        return self._body.end

    @property
    def is_over(self) -> bool:
        """Whether the body is whole, read or not."""
        return self._body.end is not End.OPEN

    def fail(self, error: BaseException) -> None:
        """Raise this error in a reader that waits for the body."""
        self._wire.fail(error)

    def close(self) -> None:
        """Return the connection to the pool, or close it if it must not be used again."""
        if self._is_done:
            return
        self._is_done = True
        if self._wire.finish():
            self._connection.release()
        else:
            self._connection.close()


class Exchanges:
    """Sends over a pool of connections. Made on the event loop; closed by `close`."""

    def __init__(self, *, head_seconds: float, connect_seconds: float) -> None:
        self._head_seconds = head_seconds
        self._timeout = aiohttp.ClientTimeout(total=None, connect=head_seconds, sock_connect=connect_seconds)
        self._shortage_logged_at = -_LOG_AGAIN_SECONDS
        self._loop = loop = asyncio.get_running_loop()
        self._connector = Connector(self._note_stray)
        self._session = aiohttp.ClientSession(connector=self._connector, cookie_jar=aiohttp.DummyCookieJar())
        self._distrusted: set[str] = set()

        @lru_cache(maxsize=256)
        def way(method: str, url: str, proxy: str | None) -> tuple[aiohttp.ClientRequest, str, str]:
            # The pool reads the destination from a request; this one is never sent.
            parsed = URL(url, encoded=True)
            asker = aiohttp.ClientRequest(
                method, parsed, loop=loop, session=self._session, **({} if proxy is None else _proxy(proxy))
            )
            target, more = asker.url.raw_path_qs, ""
            if proxy is not None and not asker.is_ssl():
                # RFC 9112 section 3.2.2: a proxy needs the whole URL, and its own credential.
                target = str(asker.url)
                more = "".join(f"{name}: {value}\r\n" for name, value in (asker.proxy_headers or {}).items())
            if isinstance(asker.proxy_headers, CIMultiDict):
                # aiohttp would add it later, and the pool would then look for another connection.
                asker.proxy_headers["Host"] = asker.headers["Host"]
            start = f"{asker.method} {target} HTTP/1.1\r\nHost: {asker.headers['Host']}\r\n{more}"
            return asker, start, str(parsed.origin())

        self._way = way

    def has_resolved(self, host: str) -> bool:
        """Whether DNS has resolved a name since the start."""
        return host in self._connector.resolved

    def has_connected(self, host: str, port: int | None) -> bool:
        """Whether a connection has succeeded since the start, TLS included where it is used."""
        return (host, port) in self._connector.connected

    async def close(self) -> None:
        """End all connections."""
        await self._session.close()

    async def send(
        self,
        method: str,
        url: str,
        headers: HeaderPairs,
        body: bytes | AsyncIterator[bytes] | None,
        *,
        proxy: str | None = None,
        least_seconds: float = 0.0,
        before_first_byte: Callable[[], None] | None = None,
    ) -> Exchange:
        """Send a request and return once the answer's head has arrived.

        Args:
            proxy: URL of the proxy to use.
            least_seconds: minimum for each deadline.
            before_first_byte: called once there is a connection; if it raises, nothing is written.
            headers: all but Host, Accept-Encoding and, for a body in bytes, Content-Length.

        Raises:
            Unsent: there is no connection that may be written to.
            HeadTooLate: the answer's head did not come in time.
            CutOff, StrayResponse, BadFraming: the connection broke, or the response is not valid.
        """
        loop = self._loop
        ends_at = loop.time() + max(self._head_seconds, least_seconds)
        asker, start, origin = self._way(method, url, proxy)
        head = _head(start, headers, _framing(method, headers, body))
        connection, wire = await self._connect(asker, origin)
        timer = loop.call_at(ends_at, wire.fail, HeadTooLate())
        try:
            if before_first_byte is not None:
                before_first_byte()
            wire.begin(method, origin, is_streamed=not isinstance(body, bytes | None))
            if isinstance(body, bytes) or body is None:
                _write(wire, head, body or b"")
                found = await wire.head()
            else:
                is_chunked = not any(name.lower() == "content-length" for name, _ in headers)
                wire.write(head)
                found = await _pump(wire, body, is_chunked=is_chunked)
        except BaseException:
            connection.close()
            raise
        finally:
            timer.cancel()
        if origin in self._distrusted:
            wire.force_close()
        return Exchange(connection, wire, found)

    async def _connect(self, asker: aiohttp.ClientRequest, origin: str) -> tuple[Connection, UpstreamConnection]:
        """Return a connection without unread bytes."""
        while True:
            connection = await self._acquire(asker)
            wire = wire_of(connection.protocol)
            is_new = not wire.answered
            wire.origin = origin
            try:
                if is_new:
                    # Time for a server that speaks first: its bytes would look like an answer.
                    await asyncio.sleep(_FRESH_SECONDS)
                if await wire.settle():
                    return connection, wire
            except BaseException:
                connection.close()
                raise
            connection.close()
            if is_new:
                raise Unsent from (SpokeFirst() if wire.is_stray else aiohttp.ServerDisconnectedError())

    async def _acquire(self, asker: aiohttp.ClientRequest) -> Connection:
        """Return a connection; wait for a file descriptor if none is free."""
        ends_at = self._loop.time() + _SHORTAGE_SECONDS
        while True:
            try:
                connection = await self._connector.connect(asker, traces=[], timeout=self._timeout)
            except TimeoutError as error:
                raise Unsent from aiohttp.ConnectionTimeoutError(str(error))
            except (aiohttp.ClientError, OSError, TunnelRefused) as error:
                if not is_shortage(error) or self._loop.time() > ends_at:
                    raise Unsent from error
                self._log_shortage()
                self.close_idle()
                await asyncio.sleep(_SHORTAGE_WAIT_SECONDS)
            else:
                return connection

    def close_idle(self) -> None:
        """Close all connections that are not in use, to free their file descriptors."""
        self._connector.close_idle()

    def _log_shortage(self) -> None:
        now = self._loop.time()
        if now >= self._shortage_logged_at + _LOG_AGAIN_SECONDS:
            self._shortage_logged_at = now
            log.error(
                "out of file descriptors for connections to the upstream: calls wait for one; "
                "raise the limit of open files (ulimit -n)"
            )

    def _note_stray(self, wire: UpstreamConnection) -> None:
        if wire.origin in self._distrusted:
            return
        self._distrusted.add(wire.origin)
        log.warning(
            "the upstream sent a response to no request: from now on each connection to it is used for one request, "
            "so that no request can get another one's answer",
            extra={"upstream": wire.origin, "answers_before": wire.answered},
        )


def _proxy(url: str) -> dict[str, Any]:
    """Return a proxy's URL, and its credential apart, as aiohttp needs them."""
    found = URL(url if "://" in url else f"http://{url}")
    headers: CIMultiDict[str] = CIMultiDict()
    if found.user is not None:
        credential = base64.b64encode(f"{found.user}:{found.password or ''}".encode()).decode()
        headers["Proxy-Authorization"] = f"Basic {credential}"
    return {"proxy": found.with_user(None), "proxy_headers": headers}


def _framing(method: str, headers: HeaderPairs, body: bytes | AsyncIterator[bytes] | None) -> str:
    if isinstance(body, bytes):
        return f"Content-Length: {len(body)}\r\n"
    has_length = any(name.lower() == "content-length" for name, _ in headers)
    if has_length or (body is None and method in _BODILESS):
        return ""
    return "Content-Length: 0\r\n" if body is None else "Transfer-Encoding: chunked\r\n"


def _head(start: str, headers: HeaderPairs, framing: str) -> bytes:
    lines = [start, *[f"{name}: {value}\r\n" for name, value in headers]]
    lines.append(f"Accept-Encoding: identity\r\n{framing}\r\n")
    text = "".join(lines)
    # Line breaks of our own: those of the first lines, and two or three in the last one.
    breaks = start.count("\n") + len(headers) + 2 + (framing != "")
    if text.count("\r") != breaks or text.count("\n") != breaks:
        raise ValueError("a header holds a line break")  # a configured credential may
    # Bytes that are not UTF-8 are lone surrogates here, and are written as they came.
    return text.encode("utf-8", "surrogateescape")


def _write(wire: UpstreamConnection, head: bytes, body: bytes) -> None:
    if len(body) <= _ONE_WRITE_BYTES:
        wire.write(head + body)
    else:
        wire.write(head, body)


async def _pump(wire: UpstreamConnection, body: AsyncIterator[bytes], *, is_chunked: bool) -> Head:
    """Write a body as it arrives, until the answer's head has come."""
    answering = asyncio.ensure_future(wire.head())
    writing = asyncio.ensure_future(_write_all(wire, body, is_chunked=is_chunked))
    try:
        await asyncio.wait((answering, writing), return_when=asyncio.FIRST_COMPLETED)
        if writing.done():
            with contextlib.suppress(CutOff):  # its answer may have come before the connection broke
                writing.result()
        else:
            wire.force_close()  # an early error: the rest of the body is not sent
        return await answering
    finally:
        for task in (writing, answering):
            task.cancel()
        await asyncio.gather(writing, answering, return_exceptions=True)


async def _write_all(wire: UpstreamConnection, body: AsyncIterator[bytes], *, is_chunked: bool) -> None:
    async for chunk in body:
        if chunk:
            wire.write(*((b"%x\r\n" % len(chunk), chunk, b"\r\n") if is_chunked else (chunk,)))
            await wire.drain()
    if is_chunked:
        wire.write(b"0\r\n\r\n")
    wire.has_written_all = True
