"""Looks at a 200 before any byte of it is let go: some errors come dressed as answers, some answers are cut.

Anthropic sends a 529 as the first event of a 200 stream, OpenRouter and gateways an error as a 200 body. Seen this
early it is a failed attempt like any other; later it would be a broken answer. What was read is put before the rest.
"""

from collections import deque
from collections.abc import AsyncIterator

from kdproxy.core import sse
from kdproxy.core.models import HeaderPairs
from kdproxy.core.ports import UpstreamResponse

_LARGEST_PEEK = 65_536


class Peeked:
    """An answer whose first bytes have been read: the UpstreamResponse port."""

    def __init__(self, response: UpstreamResponse) -> None:
        self._response = response
        self._first: deque[bytes] = deque()
        self._is_over = False
        self.status = response.status
        self.headers: HeaderPairs = response.headers
        self.content_length = response.content_length
        self.is_end_marked = response.is_end_marked

    async def look(self) -> bytes:
        """Read on, and keep what was read for `chunk`. Nothing at the end."""
        chunk = await self._response.chunk()
        if chunk:
            self._first.append(chunk)
        return chunk

    async def look_at_all(self, limit_bytes: int) -> bytes:
        """Read the whole body, and keep it for `chunk`. Past the limit: nothing, and the rest is left."""
        size = 0
        while chunk := await self.look():
            size += len(chunk)
            if size > limit_bytes:
                return b""
        self._is_over = True
        if len(self._first) > 1:
            whole = b"".join(self._first)
            self._first.clear()
            self._first.append(whole)
        return self._first[0] if self._first else b""

    async def chunk(self) -> bytes:
        """Return what has come of the body; nothing at its end. Raises UpstreamFailed if it is cut."""
        if self._first:
            return self._first.popleft()
        return b"" if self._is_over else await self._response.chunk()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raises UpstreamFailed if it is cut."""
        while chunk := await self.chunk():
            yield chunk

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body. Raises UpstreamFailed if it is cut, or what is left of it is longer than the limit."""
        first = b"".join(self._first)
        self._first.clear()
        return first if self._is_over else first + await self._response.read(limit_bytes)

    def drop(self) -> bytes:
        """Close it and return what has been read: an error's stream says no more, and some gateways leave it open."""
        self.close()
        return b"".join(self._first)

    def close(self) -> None:
        """Drop the connection if the body was not read to its end."""
        self._response.close()


async def peek(response: UpstreamResponse, *, whole_bytes: int) -> tuple[UpstreamResponse, bytes]:
    """Return the answer, and what may be an error at its beginning (empty: it is none).

    A stream is looked into up to its first event or comment, so that nothing is held back that keeps a client waiting
    in good faith. Any other body goes to clients whole anyway, so it is read whole here, up to `whole_bytes`: one that
    is cut was no answer.

    Raises:
        UpstreamFailed: it was cut before that.
    """
    if response.status != 200:
        return response, b""
    kind = next((value.lower() for name, value in response.headers if name.lower() == "content-type"), "")
    is_stream = kind.startswith("text/event-stream")
    if not is_stream and not whole_bytes:
        return response, b""
    peeked = Peeked(response)
    return peeked, await (_first_event(peeked) if is_stream else _error_body(peeked, whole_bytes))


async def _first_event(peeked: Peeked) -> bytes:
    splitter = sse.Splitter()
    size = 0
    while chunk := await peeked.look():
        size += len(chunk)
        piece = next(splitter.feed(chunk), None)
        if piece is not None:
            return piece.data
        if size > _LARGEST_PEEK or chunk.startswith(b":"):
            break
    return b""


async def _error_body(peeked: Peeked, whole_bytes: int) -> bytes:
    body = await peeked.look_at_all(whole_bytes)
    return body if len(body) <= _LARGEST_PEEK and b'"error"' in body.lstrip()[:64] else b""
