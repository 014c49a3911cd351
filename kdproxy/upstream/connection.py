"""One connection to an upstream: received bytes belong to the request that was written, or they end the connection.

Rule: bytes that come while no request is under way, or after a whole answer, answer no request (a faulty gateway's
second response, a late 408). If they stayed in the pool, each later request would get the answer to the one before it.
So such bytes end the connection at once; before a request is written the kernel is asked whether unread bytes wait;
and an answer that begins before the server can have the whole request is rejected, unless it is an early error.
"""

import array
import asyncio
import fcntl
import select
import termios
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any

from kdproxy.upstream.framing import BadFraming, End, Head, parse_head, split_head

READ_BUFFER_BYTES = 1 << 18
"""Bytes of a body that are buffered here before reading pauses."""

_MOST_INTERIM = 1_000
"""Interim (1xx) responses to one request: a server that works for an hour may send a 102 every few seconds."""

_SETTLE_TURNS = 5


_queued = array.array("i", [0])
"""Where the kernel writes how many bytes are queued. Event loop only."""


class CutOff(Exception):
    """The connection ended before the answer. `__cause__` is the operating system's error, if there was one."""


class StrayResponse(Exception):
    """The response began before the server had the request, so it answers another request."""


class _State(Enum):
    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    OVER = "over"


class UpstreamConnection(asyncio.Protocol):
    """The protocol that aiohttp's connector makes and pools, in place of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_stray: Callable[["UpstreamConnection"], None]) -> None:
        self._loop = loop
        self._on_stray = on_stray
        self.transport: asyncio.Transport | None = None
        self._descriptor = -1
        """The socket's file descriptor while there is a transport; -1: no socket."""
        self._unread: select.poll | None = None
        """Asks the kernel whether unread bytes wait."""
        self.is_stray = False
        """Whether it received bytes that answer no request."""
        self.answered = 0
        """Number of answers received."""
        self.origin = ""
        """Scheme, host and port of the last request."""
        self.has_written_all = True
        """False while a body is being streamed."""
        self._state = _State.IDLE
        self._should_close = False
        self._closed: asyncio.Future[None] | None = None
        self._is_lost = False
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._method = ""
        self._written = 0
        self._has_arrived = False
        """Whether the server's kernel has acknowledged all that was written so far."""
        self._buffer = b""
        self._interim = 0
        self._head: Head | None = None
        self._chunks: deque[bytes] = deque()
        self._chunk_bytes = 0
        self._is_paused = False
        self._error: BaseException | None = None

    # -- called by aiohttp's connector --------------------------------------------------------------------------

    @property
    def should_close(self) -> bool:
        """Whether it must not be used again."""
        return self._should_close or self._state is not _State.IDLE

    @property
    def closed(self) -> asyncio.Future[None] | None:
        """A future that is done when the connection ends; None if it has ended."""
        if self._closed is None and not self._is_lost:
            self._closed = self._loop.create_future()
        return self._closed

    def is_connected(self) -> bool:
        """Whether it can be written to."""
        return self.transport is not None and not self.transport.is_closing()

    def close(self) -> None:
        """Close the connection. A waiting reader gets a CutOff."""
        self._end(CutOff())
        if self.transport is not None:
            self.transport.close()
            self.transport = None

    def abort(self) -> None:
        """Close the connection at once and drop what is left to write."""
        self._end(CutOff())
        if self.transport is not None:
            self.transport.abort()
            self.transport = None

    # -- called by the exchange ---------------------------------------------------------------------------------

    async def settle(self) -> bool:
        """Return whether a request may be written: no unread bytes, and the server has not begun to close."""
        for _ in range(_SETTLE_TURNS):
            if not self.is_connected() or self.is_stray:
                return False
            if not self._has_unread():
                return True
            await asyncio.sleep(0)  # let the loop read it: a close, a stray answer, or a TLS session ticket
        return False

    def begin(self, method: str, origin: str, *, is_streamed: bool = False) -> None:
        """Expect the answer to a request of this method. The caller of a streamed request sets `has_written_all`."""
        assert self._state is _State.IDLE
        self._state = _State.HEAD
        self._method, self.origin = method, origin
        self.has_written_all = not is_streamed
        self._written = self._interim = 0
        self._head = None

    def write(self, *parts: bytes) -> None:
        """Write a piece of the request."""
        if self.transport is None:
            raise self._error or CutOff()
        self._has_arrived = False
        if len(parts) == 1:
            self._written += len(parts[0])
            self.transport.write(parts[0])
        else:
            self._written += sum(map(len, parts))
            self.transport.writelines(parts)

    async def drain(self) -> None:
        """Wait until more may be written."""
        if self._writable is not None:
            await self._writable
        if self._error is not None:
            raise self._error

    async def head(self) -> Head:
        """Return the answer's head. Raises CutOff, StrayResponse, BadFraming or the error given to `fail`."""
        while self._head is None:
            if self._error is not None:
                raise self._error
            await self._wait()
        return self._head

    def read_nowait(self) -> bytes:
        """Return the received part of the body, perhaps nothing."""
        if not self._chunks:
            return b""
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._chunk_bytes = 0
        if self._is_paused and self.transport is not None:
            self._is_paused = False
            self.transport.resume_reading()
        return data

    async def read(self) -> bytes:
        """Wait for more of the body and return it; nothing at its end. Raises as `head` does."""
        while not self._chunks and not self.is_over:
            if self._error is not None:
                raise self._error
            await self._wait()
        return self.read_nowait()

    async def wait(self, ends_at: float) -> bool:
        """Return whether `read` would return or raise at once; wait for that until the loop's time `ends_at`."""
        while not (self._chunks or self.is_over or self._error is not None):
            if self._loop.time() >= ends_at:
                return False
            timer = self._loop.call_at(ends_at, self._wake)
            try:
                await self._wait()
            finally:
                timer.cancel()
        return True

    @property
    def is_over(self) -> bool:
        """Whether the whole answer has been received, read or not."""
        return self._head is not None and self._head.body.end is not End.OPEN

    def finish(self) -> bool:
        """Note that the answer has been read; return whether the connection may be used again."""
        head = self._head
        is_reusable = (
            self.is_over
            and head is not None
            and head.keeps_alive
            and not self._should_close
            and self.is_connected()
            and (self._has_arrived or not self._unsent())
        )
        self._head = None
        if is_reusable:
            self.answered += 1
            self._state = _State.IDLE
        return is_reusable

    def force_close(self) -> None:
        """Make this answer the last one on this connection."""
        self._should_close = True

    def fail(self, error: BaseException) -> None:
        """Raise this error in a waiting reader, unless the answer is whole."""
        if not self.is_over:
            self._end(error)

    # -- called by the event loop -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self.transport = transport  # type: ignore[assignment]
        found: Any = transport.get_extra_info("socket")
        self._descriptor = -1 if found is None else int(found.fileno())
        if self._descriptor >= 0:
            self._unread = select.poll()
            self._unread.register(self._descriptor, select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Take received bytes."""
        match self._state:
            case _State.HEAD:
                self._take_head(data)
            case _State.BODY:
                self._take_body(data)
            case _State.IDLE:
                self._distrust()
                self.abort()
            case _State.OVER:
                self._distrust()

    def eof_received(self) -> None:
        """Do nothing: the transport closes itself, and `connection_lost` decides."""

    def connection_lost(self, error: Exception | None) -> None:
        """Fail a waiting reader, unless the end of the connection is the end of the body."""
        self._is_lost = True
        self._should_close = True
        self.transport = None
        if self._state is _State.BODY and error is None and self._head is not None:
            self._head.body.feed_eof()
        cut = CutOff()
        cut.__cause__ = error
        self._end(cut)
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        """Hold `drain` until the peer reads again."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Release `drain`."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # -- private ------------------------------------------------------------------------------------------------

    def _take_head(self, data: bytes) -> None:
        try:
            while True:
                data = self._buffer + data if self._buffer else data
                found = split_head(data)
                if found is None:
                    self._buffer = data
                    return
                raw, data = found
                self._buffer = b""
                head = parse_head(raw, method=self._method)
                if head.status >= 200:
                    break
                self._pass_over(head)
            self._check_order(head)
            self._head = head
            self._state = _State.BODY
            if data or self.is_over:
                self._take_body(data)
            else:
                self._wake()
        except (BadFraming, StrayResponse) as error:
            self._end(error)

    def _pass_over(self, interim: Head) -> None:
        self._interim += 1
        if interim.status == 101:
            raise BadFraming("it switches to another protocol unasked")
        if self._interim > _MOST_INTERIM:
            raise BadFraming(f"it sends more than {_MOST_INTERIM} interim responses")

    def _check_order(self, head: Head) -> None:
        """RFC 9112 section 9.5: only an error may come before the server has the whole request."""
        unsent = self._unsent()
        self._has_arrived = not unsent
        if not unsent and self.has_written_all:
            return
        self._should_close = True
        if head.status < 400 or unsent >= self._written:
            self._distrust()
            raise StrayResponse

    def _take_body(self, data: bytes) -> None:
        assert self._head is not None
        try:
            piece, extra = self._head.body.feed(data) if data else (b"", b"")
        except BadFraming as error:
            self._end(error)
            return
        if extra:
            self._distrust()
        if piece:
            self._chunks.append(piece)
            self._chunk_bytes += len(piece)
        if self.is_over:
            self._state = _State.OVER
        elif self._chunk_bytes > READ_BUFFER_BYTES and not self._is_paused and self.transport is not None:
            self._is_paused = True
            self.transport.pause_reading()
        self._wake()

    def _distrust(self) -> None:
        self.is_stray = self._should_close = True
        self._on_stray(self)

    def _end(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._should_close = True
        self._wake()
        self.resume_writing()

    async def _wait(self) -> None:
        assert self._waiter is None  # one reader
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- state of the socket ------------------------------------------------------------------------------------

    def _has_unread(self) -> bool:
        """Whether bytes or the server's close wait in the kernel."""
        return self.transport is not None and self._unread is not None and bool(self._unread.poll(0))

    def _unsent(self) -> int:
        """Bytes of the request that the server's kernel has not acknowledged: SIOCOUTQ, in tcp(7).

        An answer to the whole request acknowledges it with its first packet at the latest.
        """
        if self.transport is None:
            return 0
        waiting = self.transport.get_write_buffer_size()
        if self._descriptor < 0:
            return waiting
        try:
            fcntl.ioctl(self._descriptor, termios.TIOCOUTQ, _queued)
        except OSError:
            return waiting  # SIOCOUTQ does not exist on every system
        return waiting + _queued[0]
