"""Inspects a 200 before any byte of it is forwarded: some are errors in disguise, and some hold no answer.

Anthropic sends a 529 as an event of a 200 stream, OpenRouter and gateways an error as a 200 body, CDNs a page for
people, dying servers nothing at all. Seen this early each is a failed attempt like any other; later it would be a
broken answer. What was read is put before the rest.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import orjson

from kdproxy.core import sse
from kdproxy.core.models import HeaderPairs
from kdproxy.core.ports import UpstreamResponse
from kdproxy.core.sniff import Kind, sniff
from kdproxy.errors import UpstreamFailed
from kdproxy.providers.base import answer_object
from kdproxy.providers.ending import error_in
from kdproxy.providers.event import opens

_LARGEST_BEGINNING = 65_536
_ERROR_STARTS_WITHIN = 64
_BINARY_TYPES = ("audio/", "image/", "video/", "application/octet-stream")

LONGEST_HOLD_SECONDS = 8.0
"""How long a stream is held that has sent only roles, pings and comments so far: they may be what keeps a client
waiting."""

ANSWERING = frozenset({200, 201, 203})
"""Statuses that an answer comes with."""


class BufferedResponse:
    """An answer whose first bytes have been read: the UpstreamResponse port."""

    def __init__(self, response: UpstreamResponse) -> None:
        self._response = response
        self._first: deque[bytes] = deque()
        self._is_over = False
        self.status = response.status
        self.headers: HeaderPairs = response.headers
        self.content_length = response.content_length
        self.is_end_marked = response.is_end_marked
        self.content_type = ""
        """In lower case; the first one."""
        self.is_coded = False
        """Whether it has a content coding: one that is undone here no longer names it."""
        for name, value in self.headers:
            match name.lower():
                case "content-type":
                    self.content_type = self.content_type or value.lower()
                case "content-encoding":
                    self.is_coded = True

    async def buffer(self, ends_at: float | None = None) -> bytes | None:
        """Read on, and keep what was read for `chunk`. Nothing at the end; None at the loop's time `ends_at`.

        Raises:
            UpstreamFailed: it is cut.
        """
        if self._is_over:
            return b""
        if ends_at is not None and not await self._response.wait(ends_at):
            return None
        chunk = await self._response.chunk()
        if chunk:
            self._first.append(chunk)
        else:
            self._is_over = True
        return chunk

    async def buffer_all(self, limit_bytes: int) -> bytes:
        """Read the whole body, and keep it for `chunk`. Past the limit: nothing, and the rest is left."""
        size = sum(map(len, self._first))
        while not self._is_over and size <= limit_bytes:
            try:
                size += len(await self.buffer() or b"")
            except UpstreamFailed as error:
                # Without the mark of its end a body is whole where a JSON object is: nothing could follow that.
                if error.code != "end_missing" or answer_object(self.seen) is None:
                    raise
                self._is_over = True
        if size > limit_bytes:
            return b""
        whole = self.seen
        self._first = deque([whole] if whole else ())
        return whole

    @property
    def seen(self) -> bytes:
        """What has been read and not handed out."""
        return self._first[0] if len(self._first) == 1 else b"".join(self._first)

    @property
    def is_over(self) -> bool:
        """Whether the end has been seen."""
        return self._is_over

    async def chunk(self) -> bytes:
        """Return what has come of the body; nothing at its end. Raises UpstreamFailed if it is cut."""
        if self._first:
            return self._first.popleft()
        return b"" if self._is_over else await self._response.chunk()

    async def chunk_before(self, ends_at: float) -> bytes | None:
        """Return what has come of the body; nothing at its end, None at the loop's time `ends_at`.

        Raises:
            UpstreamFailed: it is cut.
        """
        if not self._first and not await self.buffer(ends_at):
            return b"" if self._is_over else None
        return self._first.popleft()

    async def wait(self, ends_at: float) -> bool:
        """Return whether `chunk` would return or raise at once; wait for that until the loop's time `ends_at`.

        Raises:
            UpstreamFailed: it is cut.
        """
        return bool(self._first) or self._is_over or await self._response.wait(ends_at)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raises UpstreamFailed if it is cut."""
        while chunk := await self.chunk():
            yield chunk

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body. Raises UpstreamFailed if it is cut, or what is left of it is longer than the limit."""
        first = self.seen
        self._first.clear()
        return first if self._is_over else first + await self._response.read(limit_bytes)

    def drop(self) -> bytes:
        """Close it and return what has been read: an error's stream says no more, and some gateways leave it open."""
        self.close()
        return self.seen

    def close(self) -> None:
        """Drop the connection if the body was not read to its end."""
        self._response.close()


class Beginning(NamedTuple):
    """An answer with what its beginning shows."""

    response: UpstreamResponse
    kind: Kind | None = None
    """What its body is; None: it was not inspected."""
    error: bytes = b""
    """An error that stands in place of an answer, as JSON."""
    fault: str = ""
    """Why there is no answer in it, in a few words; nothing of it may go out as one."""


async def read_beginning(response: UpstreamResponse, *, whole_bytes: int) -> Beginning:
    """Read the beginning of an answer.

    A stream is read up to its first token, or for `LONGEST_HOLD_SECONDS`: roles, pings and comments are no token. Any
    other body that is to be kept goes to clients whole anyway, so it is read whole here, up to `whole_bytes`: one that
    is cut was no answer. With `whole_bytes` 0 no more is read than shows what it is.

    Raises:
        UpstreamFailed: it was cut before that.
    """
    if response.status not in ANSWERING:
        return Beginning(response)
    buffered = BufferedResponse(response)
    try:
        return await _inspect(buffered, whole_bytes)
    except BaseException:
        buffered.close()
        raise


async def _inspect(buffered: BufferedResponse, whole_bytes: int) -> Beginning:
    # Most bodies are JSON, and their first byte says so.
    kind = Kind.JSON if (await buffered.buffer() or b"")[:1] == b"{" else await _kind_of(buffered)
    names_events = buffered.content_type.startswith("text/event-stream")
    if kind is Kind.EMPTY:
        return Beginning(buffered, kind, fault="an empty answer")
    if kind is Kind.HTML:
        await buffered.buffer_all(_LARGEST_BEGINNING)
        return Beginning(buffered, kind, fault="an HTML page in place of an answer")
    if kind is Kind.EVENTS or (names_events and kind is Kind.OTHER):
        return await _first_token(buffered)
    if kind is Kind.OTHER and buffered.content_type.startswith(_BINARY_TYPES):
        whole_bytes = 0  # sound and pictures are forwarded as they arrive
    return Beginning(buffered, kind, error=await _error_body(buffered, whole_bytes))


async def _kind_of(buffered: BufferedResponse) -> Kind:
    """Return what a body is whose first bytes have been read."""
    ends_at = asyncio.get_running_loop().time() + LONGEST_HOLD_SECONDS
    chunk: bytes | None = buffered.seen
    while True:
        kind = Kind.OTHER if chunk is None else sniff(buffered.seen[:_LARGEST_BEGINNING], is_whole=not chunk)
        if kind is not None:
            return kind
        # Blank lines that keep the connection alive, or a cut in the middle of a word.
        chunk = await buffered.buffer(ends_at)


async def _first_token(buffered: BufferedResponse) -> Beginning:
    splitter = sse.Splitter()
    ends_at: float | None = None
    chunk: bytes | None = buffered.seen
    size = 0
    while chunk:
        size += len(chunk)
        for piece in splitter.feed(chunk):
            error, is_token = _read(piece)
            if error or is_token:
                return Beginning(buffered, Kind.EVENTS, error=error)
        if size > _LARGEST_BEGINNING:
            return Beginning(buffered, Kind.EVENTS)
        ends_at = ends_at or asyncio.get_running_loop().time() + LONGEST_HOLD_SECONDS
        chunk = await buffered.buffer(ends_at)
    if chunk is None:
        return Beginning(buffered, Kind.EVENTS)
    rest = sse.piece(splitter.rest())
    error, is_token = _read(rest)
    fault = "" if error or is_token else "a stream that ended before its first token"
    return Beginning(buffered, Kind.EVENTS, error=error, fault=fault)


def _read(piece: sse.Piece) -> tuple[bytes, bool]:
    """Return the error that an event or a bare line is, as JSON that names it at its top, and whether it is a token."""
    members = _first_object(piece.data) if piece.data else None
    error = _error_in(piece.data, members) or _named_error(piece.bare)
    if piece.event == "error" and not error:
        error = piece.data
    is_array = piece.data.lstrip()[:1] == b"["  # no object, whatever is in it
    return error, bool(piece.data) and not opens(piece, None if is_array else members)


def _named_error(body: bytes) -> bytes:
    return _error_in(body, _first_object(body) if body else None)


def _error_in(body: bytes, members: dict[str, Any] | None) -> bytes:
    error = None if members is None else error_in(members)
    if members is None or error is None:
        return b""
    is_at_top = bool(members.get("error")) or members.get("type") == "error"
    return body if is_at_top else orjson.dumps({"error": error}, default=str)


def _first_object(body: bytes) -> dict[str, Any] | None:
    """Return the object that a body is, or the first one of an array: Gemini's streams without alt=sse are one."""
    if body.lstrip()[:1] != b"[":
        return answer_object(body)
    wrapped = answer_object(b'{"all":' + body + b"}")
    chunks = None if wrapped is None else wrapped["all"]
    return chunks[0] if isinstance(chunks, list) and chunks and isinstance(chunks[0], dict) else None


_ERROR_MARK = re.compile(rb'"(?:error|base_resp"|success")')


async def _error_body(buffered: BufferedResponse, whole_bytes: int) -> bytes:
    if whole_bytes:
        body = (await buffered.buffer_all(whole_bytes)).lstrip()
    elif b'"error"' in buffered.seen.lstrip()[:_ERROR_STARTS_WITHIN]:
        body = (await buffered.buffer_all(_LARGEST_BEGINNING)).lstrip()
    else:
        return b""
    if len(body) > _LARGEST_BEGINNING or _ERROR_MARK.search(body) is None:
        return b""
    # Some write the error on a line of its own, and `data: [DONE]` after it.
    return _named_error(body) or _named_error(body.partition(b"\n")[0])
