"""Calls to the teacher API. Adds only `Accept-Encoding: identity`; neither follows redirects nor passes them on."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

from kdproxy.core.models import HeaderPairs
from kdproxy.core.ports import UpstreamRequest
from kdproxy.errors import UpstreamFailed
from kdproxy.upstream import failure
from kdproxy.upstream.coding import DECODED, Decoder
from kdproxy.upstream.connection import CutOff, StrayResponse
from kdproxy.upstream.connector import is_shortage
from kdproxy.upstream.environment import EnvironmentProxy
from kdproxy.upstream.exchange import Exchange, Exchanges, HeadTooLate, Unsent
from kdproxy.upstream.framing import BadFraming, End

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers for one connection only (RFC 9110 section 7.6.1)."""

_NOT_FORWARDED = _HOP_BY_HOP | {"host", "accept-encoding", "expect"}
_NOT_FORWARDED_WHOLE = _NOT_FORWARDED | {"content-length"}
_NOT_COPIED_BACK = _HOP_BY_HOP | {"content-length"}
_LONGEST_HEADER = 8_190
"""Longer headers are dropped: clients reject an answer that has one (aiohttp above 8,190 bytes, Node.js 16,384)."""


class HttpUpstream:
    """One connection pool for all upstreams. Closed by `close`."""

    def __init__(
        self,
        *,
        connect_seconds: float,
        first_byte_seconds: float,
        read_seconds: float,
        total_seconds: float,
        use_environment_proxy: bool = False,
    ) -> None:
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._total_seconds = total_seconds
        self._head_seconds = min(first_byte_seconds, total_seconds)
        self._head_deadline = "total" if total_seconds < first_byte_seconds else "first_byte"
        # Not aiohttp's `trust_env`, which also reads .netrc: a host's credential there would go to the provider.
        self._environment = EnvironmentProxy() if use_environment_proxy else None
        self._exchanges = Exchanges(head_seconds=self._head_seconds, connect_seconds=connect_seconds)

    async def send(self, request: UpstreamRequest) -> "HttpResponse":
        """Send a request and return once the answer's head has arrived.

        Raises:
            UpstreamFailed: `was_sent` is false if the request cannot have reached the provider.
            KdproxyError: this machine is out of file descriptors or ports.
        """
        least = request.least_seconds
        total_seconds = max(self._total_seconds, least)
        ends_at = asyncio.get_running_loop().time() + total_seconds
        proxy = None if self._environment is None else self._environment.of(request.url)
        try:
            exchange = await self._exchanges.send(
                request.method,
                request.url,
                request.headers,
                request.body,
                proxy=proxy,
                least_seconds=least,
                before_first_byte=request.before_first_byte,
            )
        except Unsent as error:
            if is_shortage(error.__cause__):
                raise failure.shortage() from error
            raise failure.unsent(error.__cause__, self._connect_seconds, self._exchanges) from error
        except HeadTooLate as error:
            raise failure.too_late(self._head_deadline, max(self._head_seconds, least), was_sent=True) from error
        except (CutOff, StrayResponse, BadFraming, OSError) as error:
            raise failure.broken(error) from error
        location = exchange.headers.get("Location")
        if location is not None and 300 <= exchange.status < 400:
            exchange.close()
            raise failure.redirected(exchange.status, request.url, location)
        return HttpResponse(
            exchange, read_seconds=max(self._read_seconds, least), total_seconds=total_seconds, ends_at=ends_at
        )

    def close_idle(self) -> None:
        """Close all connections that are not in use."""
        self._exchanges.close_idle()

    async def close(self) -> None:
        """Close all connections."""
        await self._exchanges.close()


class _BodyTooLate(TimeoutError):
    """The rest of the answer did not come in time."""


class HttpResponse:
    """The UpstreamResponse port over an exchange."""

    def __init__(self, exchange: Exchange, *, read_seconds: float, total_seconds: float, ends_at: float) -> None:
        self._exchange = exchange
        self._read_seconds = read_seconds
        self._total_seconds = total_seconds
        self._ends_at = ends_at
        self.status = exchange.status
        headers = exchange.headers
        # A coded body is decoded here, so its length is no longer known.
        is_decoded = "Content-Encoding" in headers and headers["Content-Encoding"].strip().lower() in DECODED
        self._decoder = Decoder() if is_decoded else None
        self._decoded: Iterator[bytes] = iter(())
        self._ahead = b""
        """Decoded bytes that `wait` has found."""
        self._waiting_since: float | None = None
        """When `wait` began to wait for the next bytes: the deadline between bytes runs from there."""
        dropped = _NOT_COPIED_BACK
        if "Connection" in headers:
            dropped |= _nominated(headers)
        if is_decoded:
            dropped |= {"content-encoding"}
        # A list made into a tuple, here and below: a generator takes twice as long.
        self.headers: HeaderPairs = tuple(
            [
                (name, value if value.isascii() else _sendable(value))
                for name, value in headers.items()
                if name.lower() not in dropped and len(value) <= _LONGEST_HEADER
            ]
        )
        self.content_length: int | None = None if is_decoded else exchange.length
        # RFC 9112 section 6.3; a content coding marks its own end.
        self.is_end_marked = is_decoded or exchange.is_end_marked

    async def chunk(self) -> bytes:
        """Return the next bytes of the body, and wait for them if necessary; nothing at its end.

        Raises:
            UpstreamFailed: the body was cut, or a deadline has passed.
        """
        chunk = b""
        try:
            chunk = await (self._next() if self._decoder is None else self._next_decoded(self._decoder))
        except (CutOff, BadFraming, OSError, EOFError, zlib.error) as error:
            raise failure.cut(error) from error
        finally:
            if not chunk:
                self.close()
        return chunk

    async def wait(self, ends_at: float) -> bool:
        """Return whether `chunk` would return or raise at once; wait for that until the loop's time `ends_at`.

        Raises:
            UpstreamFailed: the coded body is damaged.
        """
        if self._decoder is None:
            return await self._wait_bytes(ends_at)
        exchange = self._exchange
        try:
            while not self._ahead:
                self._ahead = next(self._decoded, b"")
                if self._ahead or not await self._wait_bytes(ends_at):
                    break
                coded = exchange.read_nowait()
                if not coded:
                    return True  # its end, or why there is none
                self._waiting_since = None
                self._decoded = self._decoder.feed(coded)
        except zlib.error as error:
            self.close()
            raise failure.cut(error) from error
        return bool(self._ahead)

    async def _wait_bytes(self, ends_at: float) -> bool:
        if self._waiting_since is None:
            self._waiting_since = asyncio.get_running_loop().time()
        fails_at = min(self._ends_at, self._waiting_since + self._read_seconds)
        # After a deadline of its own `chunk` raises at once.
        return await self._exchange.wait(min(ends_at, fails_at)) or fails_at <= ends_at

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raises as `chunk` does."""
        while chunk := await self.chunk():
            yield chunk

    async def _next_decoded(self, decoder: Decoder) -> bytes:
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            return ahead
        while True:
            for decoded in self._decoded:
                return decoded
            coded = await self._next()
            if not coded:
                break
            self._decoded = decoder.feed(coded)
        if not decoder.is_whole:
            raise EOFError  # the transfer was complete, but the coded body was not
        return b""

    async def _next(self) -> bytes:
        exchange = self._exchange
        # A short answer arrives together with its head.
        if chunk := exchange.read_nowait():
            self._waiting_since = None
            return chunk
        if not exchange.is_over:
            chunk = await self._wait_next()
        if not chunk and exchange.end is End.UNMARKED and exchange.is_end_marked and self._decoder is None:
            raise failure.end_missing()
        return chunk

    async def _wait_next(self) -> bytes:
        loop = asyncio.get_running_loop()
        since = loop.time() if self._waiting_since is None else self._waiting_since
        is_total = self._ends_at < since + self._read_seconds
        ends_at = min(self._ends_at, since + self._read_seconds)
        timer = loop.call_at(ends_at, self._exchange.fail, _BodyTooLate())
        try:
            return await self._exchange.read()
        except _BodyTooLate as error:
            raise failure.too_late(
                "total" if is_total else "between_bytes",
                self._total_seconds if is_total else self._read_seconds,
                was_sent=True,
            ) from error
        finally:
            timer.cancel()
            self._waiting_since = None

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body. Raises UpstreamFailed if it was cut or is longer than the limit."""
        parts: list[bytes] = []
        size = 0
        while chunk := await self.chunk():
            parts.append(chunk)
            size += len(chunk)
            if size > limit_bytes:
                self.close()
                raise UpstreamFailed(
                    f"The upstream's answer is longer than {limit_bytes} bytes.",
                    hint="The call may have been billed. Ask for less in one request, or raise answer_limit_bytes.",
                    code="answer_too_large",
                    was_sent=True,
                    retryable=False,
                )
        return b"".join(parts)

    def close(self) -> None:
        """Drop the connection if the body was not read to its end."""
        self._exchange.close()


_OWN = "kdproxy-"


def forwardable(headers: Any, *, keep_length: bool) -> HeaderPairs:
    """Return the client's headers that go upstream: without hop-by-hop headers, Host and kdproxy's own.

    Args:
        headers: an aiohttp multi-dict.
        keep_length: keep Content-Length, for a body that is streamed; a whole body gets a new one.
    """
    dropped = _NOT_FORWARDED if keep_length else _NOT_FORWARDED_WHOLE
    if "Connection" in headers:
        dropped |= _nominated(headers)
    return tuple([pair for pair in headers.items() if (name := pair[0].lower()) not in dropped and name[:8] != _OWN])


def _nominated(headers: Any) -> frozenset[str]:
    """Return the header names that the sender declares to be for one connection only."""
    return frozenset(name.strip().lower() for value in headers.getall("Connection") for name in value.split(","))


def _sendable(value: str) -> str:
    """Return a header value, which is not ASCII, so that aiohttp writes it in full.

    It drops bytes that are not UTF-8: read them as Latin-1.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape").decode("latin-1")
    return value
