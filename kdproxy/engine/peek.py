"""Looks at the beginning of a 200 before any byte of it is let go: some errors come dressed as answers.

Anthropic sends a 529 as the first event of a 200 stream, OpenRouter and gateways an error as a 200 body. Seen this
early it is a failed attempt like any other; later it would be a broken answer. What was read is put before the rest.
"""

from collections.abc import AsyncIterator

from kdproxy.core import sse
from kdproxy.core.models import HeaderPairs
from kdproxy.core.ports import UpstreamResponse

_LARGEST_PEEK = 65_536


class Peeked:
    """An answer whose first bytes have been read: the UpstreamResponse port."""

    def __init__(self, response: UpstreamResponse, first: list[bytes], rest: AsyncIterator[bytes]) -> None:
        self._response = response
        self._first = first
        self._rest = rest
        self.status = response.status
        self.headers: HeaderPairs = response.headers
        self.content_length = response.content_length

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raises UpstreamFailed if it is cut."""
        while self._first:
            yield self._first.pop(0)
        async for chunk in self._rest:
            yield chunk

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body. Raises UpstreamFailed if it is cut."""
        return b"".join([chunk async for chunk in self.chunks()])

    def close(self) -> None:
        """Drop the connection if the body was not read to its end."""
        self._response.close()


async def peek(response: UpstreamResponse) -> tuple[UpstreamResponse, bytes]:
    """Return the answer, and what may be an error at its beginning (empty: it is none).

    A stream is looked into up to its first event or comment, so that nothing is held back that keeps a client waiting
    in good faith; a JSON body only if it begins as an error does.

    Raises:
        UpstreamFailed: it was cut before that.
    """
    kind = next((value.lower() for name, value in response.headers if name.lower() == "content-type"), "")
    if response.status != 200 or not kind.startswith(("text/event-stream", "application/json")):
        return response, b""
    rest = response.chunks()
    peeked = Peeked(response, [], rest)
    if kind.startswith("application/json"):
        return peeked, await _error_body(peeked._first, rest)
    return peeked, await _first_event(peeked._first, rest)


async def _first_event(first: list[bytes], rest: AsyncIterator[bytes]) -> bytes:
    splitter = sse.Splitter()
    size = 0
    async for chunk in rest:
        first.append(chunk)
        size += len(chunk)
        piece = next(splitter.feed(chunk), None)
        if piece is not None:
            return piece.data
        if size > _LARGEST_PEEK or chunk.startswith(b":"):
            break
    return b""


async def _error_body(first: list[bytes], rest: AsyncIterator[bytes]) -> bytes:
    size = 0
    async for chunk in rest:
        first.append(chunk)
        size += len(chunk)
        start = b"".join(first).lstrip()
        if start and (b'"error"' not in start[:64] or size > _LARGEST_PEEK):
            return b""
    return b"".join(first)
