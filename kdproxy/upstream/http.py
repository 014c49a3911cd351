"""Calls to the teacher API by aiohttp. Adds nothing but `Accept-Encoding: identity`; follows no redirect."""

import asyncio
import os
import ssl
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
from aiohttp.http import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from kdproxy.core.models import HeaderPairs
from kdproxy.core.ports import UpstreamRequest
from kdproxy.errors import UpstreamFailed
from kdproxy.upstream.coding import DECODED, Decoder
from kdproxy.upstream.exchange import MAX_HEADER_BYTES, READ_BUFFER_BYTES, Exchange, Exchanges, HeadTooLate

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
"""RFC 9110 section 7.6.1: for one connection only."""

_NOT_FORWARDED = _HOP_BY_HOP | {"host", "accept-encoding", "expect"}
_NOT_COPIED_BACK = _HOP_BY_HOP | {"content-length"}
_NOT_ADDED = ("User-Agent", "Content-Type", "Accept", "Accept-Encoding")


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
        # Not by aiohttp's `trust_env`, which also reads .netrc: what stands there for a host would go to the provider.
        self._proxies = getproxies_environment() if use_environment_proxy else {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            # The other deadlines are kept here: aiohttp's do not tell which of them struck.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds),
            skip_auto_headers=_NOT_ADDED,
            # aiohttp fails on a coding that it has no library for, after the answer has been paid.
            auto_decompress=False,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            read_bufsize=READ_BUFFER_BYTES,
        )
        self._exchanges = Exchanges(
            self._session, head_seconds=self._head_seconds, connect_seconds=self._connect_seconds
        )

    async def send(self, request: UpstreamRequest) -> "HttpResponse":
        """Send a request and return when the answer's head is there.

        Raises:
            UpstreamFailed: `was_sent` is false where the request cannot have reached the provider.
        """
        ends_at = asyncio.get_running_loop().time() + self._total_seconds
        try:
            response = await self._answer(request)
        except aiohttp.ConnectionTimeoutError as error:
            raise _too_late("connect", self._connect_seconds, was_sent=False) from error
        except HeadTooLate as error:
            raise _too_late(self._head_deadline, self._head_seconds, was_sent=True) from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise _untrusted(error) from error
        except aiohttp.ClientConnectorError as error:
            raise _failed("The upstream could not be reached", error, was_sent=False) from error
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            raise _failed("The upstream broke off before it answered", error, was_sent=True) from error
        return HttpResponse(
            response, read_seconds=self._read_seconds, total_seconds=self._total_seconds, ends_at=ends_at
        )

    async def _answer(self, request: UpstreamRequest) -> aiohttp.ClientResponse | Exchange:
        url = URL(request.url, encoded=True)
        proxy = self._proxy_of(url) if self._proxies else None
        if isinstance(request.body, bytes) and proxy is None:
            return await self._exchanges.send(request.method, request.url, request.headers, request.body)
        # A body that streams, or a way over the environment's proxy: aiohttp's session knows how.
        headers: CIMultiDict[str] = CIMultiDict()
        spelling: dict[str, str] = {}
        for name, value in request.headers:
            # aiohttp keeps repeated headers only where they are spelled alike.
            headers.add(spelling.setdefault(name.lower(), name), _sendable(value))
        headers["Accept-Encoding"] = "identity"
        try:
            async with asyncio.timeout(self._head_seconds) as deadline:
                return await self._session.request(
                    request.method,
                    url,
                    headers=headers,
                    proxy=proxy,
                    data=request.body,
                    allow_redirects=False,
                )
        except TimeoutError as error:
            if deadline.expired():
                raise HeadTooLate from error
            raise

    def _proxy_of(self, url: URL) -> str | None:
        """Return the proxy that the environment names for a URL, unless NO_PROXY takes its host out."""
        return None if proxy_bypass(url.host or "") else self._proxies.get(url.scheme)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


class HttpResponse:
    """The UpstreamResponse port over an aiohttp response or an Exchange."""

    def __init__(
        self, response: aiohttp.ClientResponse | Exchange, *, read_seconds: float, total_seconds: float, ends_at: float
    ) -> None:
        self._response = response
        self._read_seconds = read_seconds
        self._total_seconds = total_seconds
        self._ends_at = ends_at
        self.status = response.status
        headers = response.headers
        # A coded body is decoded on the way in, so its length is not known any more.
        is_decoded = headers.get("Content-Encoding", "").strip().lower() in DECODED
        self._decoder = Decoder() if is_decoded else None
        self._decoded: Iterator[bytes] = iter(())
        dropped = _NOT_COPIED_BACK | _nominated(headers)
        if is_decoded:
            dropped |= {"content-encoding"}
        self.headers: HeaderPairs = tuple(
            (name, _sendable(value)) for name, value in headers.items() if name.lower() not in dropped
        )
        length = headers.get("Content-Length")
        self.content_length: int | None = None if is_decoded or length is None else int(length)
        # RFC 9112 section 6.3; a coding has an end of its own.
        self.is_end_marked = is_decoded or length is not None or "Transfer-Encoding" in headers
        self._is_late = False

    async def chunk(self) -> bytes:
        """Return what has come of the body, waiting for it if need be; nothing at its end.

        Raises:
            UpstreamFailed: it is cut, or a deadline has passed.
        """
        chunk = b""
        try:
            chunk = await (self._next() if self._decoder is None else self._next_decoded(self._decoder))
        except (aiohttp.ClientError, TimeoutError, OSError, EOFError, zlib.error) as error:
            raise _failed("The upstream cut its answer", error, was_sent=True) from error
        finally:
            if not chunk:
                self.close()
        return chunk

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raises as `chunk` does."""
        while chunk := await self.chunk():
            yield chunk

    async def _next_decoded(self, decoder: Decoder) -> bytes:
        while True:
            for decoded in self._decoded:
                return decoded
            coded = await self._next()
            if not coded:
                break
            self._decoded = decoder.feed(coded)
        if not decoder.is_whole:
            raise EOFError  # the transfer was whole, what it carried was not
        return b""

    async def _next(self) -> bytes:
        content = self._response.content
        # A short answer lies there with its head.
        if chunk := content.read_nowait():
            return chunk
        if content.at_eof():
            return b""
        loop = asyncio.get_running_loop()
        now = loop.time()
        is_total = self._ends_at < now + self._read_seconds
        timer = loop.call_at(min(self._ends_at, now + self._read_seconds), self._expire)
        try:
            return await content.readany()
        except aiohttp.ClientError as error:
            if not self._is_late:
                raise
            raise _too_late(
                "total" if is_total else "between_bytes",
                self._total_seconds if is_total else self._read_seconds,
                was_sent=True,
            ) from error
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self._is_late = True
        self._response.close()

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body. Raises UpstreamFailed if it is cut or longer than the limit."""
        parts: list[bytes] = []
        size = 0
        while chunk := await self.chunk():
            parts.append(chunk)
            size += len(chunk)
            if size > limit_bytes:
                self.close()
                raise UpstreamFailed(
                    f"The upstream's answer is longer than {limit_bytes} bytes.",
                    hint="Ask for less at once, or raise answer_limit_bytes.",
                    code="answer_too_large",
                    was_sent=True,
                    retryable=False,
                )
        return b"".join(parts)

    def close(self) -> None:
        """Drop the connection if the body was not read to its end."""
        self._response.release() if self._response.content.at_eof() else self._response.close()


def forwardable(headers: Any, *, keep_length: bool) -> HeaderPairs:
    """Return what of a client's headers goes upstream: no hop-by-hop ones, no Host, none of ours.

    Args:
        headers: an aiohttp multi-dict.
        keep_length: keep Content-Length, for a body that streams through; a whole body gets its own.
    """
    dropped = _NOT_FORWARDED | _nominated(headers)
    if not keep_length:
        dropped |= {"content-length"}
    return tuple(
        pair for pair in headers.items() if (name := pair[0].lower()) not in dropped and not name.startswith("kdproxy-")
    )


def _nominated(headers: Any) -> frozenset[str]:
    """Names that the sender declares to be for one connection only."""
    if "Connection" not in headers:
        return frozenset()
    return frozenset(name.strip().lower() for value in headers.getall("Connection") for name in value.split(","))


def _sendable(value: str) -> str:
    """Return a header value that aiohttp writes in full: it drops bytes that are not UTF-8, which are Latin-1 then."""
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape").decode("latin-1")
    return value


_DEADLINES = {
    "connect": ("No connection to the upstream came about", "connect_seconds"),
    "first_byte": ("The upstream did not begin to answer", "first_byte_seconds"),
    "between_bytes": ("The upstream fell silent in the middle of its answer", "read_seconds"),
    "total": ("The call to the upstream was not over", "total_seconds"),
}
"""What struck, and the setting that it is."""


def _too_late(deadline: str, seconds: float, *, was_sent: bool) -> UpstreamFailed:
    what, setting = _DEADLINES[deadline]
    return UpstreamFailed(
        f"{what} within {seconds:g} s ({setting}).",
        hint=f"Look at the upstream, or raise {setting}.",
        code=f"{deadline}_timeout",
        was_sent=was_sent,
    )


def _failed(what: str, error: BaseException, *, was_sent: bool) -> UpstreamFailed:
    return UpstreamFailed(
        f"{what} ({_cause(error)}).",
        hint="Check the upstream's address and the network; the call is tried again until the deadline.",
        was_sent=was_sent,
    )


def _cause(error: BaseException) -> str:
    """Say why, in words that hold nothing of the request: an aiohttp error's own can hold a URL with a credential."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"its name {error.host} is not known to DNS"
        case aiohttp.ClientConnectorSSLError():
            return f"TLS: {_of_tls(error.os_error)}"
        case aiohttp.ClientConnectorError():
            return _of_system(error.os_error)
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection"
        case aiohttp.ClientPayloadError() | EOFError():
            return "the body ended before its end"
        case zlib.error():
            return "the body's compression is broken"
        case OSError():
            return _of_system(error)
        case _:
            return type(error).__name__


def _of_system(error: OSError) -> str:
    # Several addresses of one name: the text of all is long, the number is that of one.
    return os.strerror(error.errno) if error.errno and error.errno > 0 else type(error).__name__


def _of_tls(error: OSError) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return str(reason or type(error).__name__).replace("_", " ").lower()


def _untrusted(error: aiohttp.ClientConnectorCertificateError) -> UpstreamFailed:
    found = error.certificate_error
    why = found.verify_message if isinstance(found, ssl.SSLCertVerificationError) else type(found).__name__
    return UpstreamFailed(
        f"The certificate of the upstream {error.host} is not trusted ({why.rstrip('.')}).",
        hint="If it is your own, set SSL_CERT_FILE to the certificate of who signed it and start kdproxy again.",
        code="upstream_untrusted",
        was_sent=False,
        retryable=False,
    )
