"""Watches an answer pass: what may go to clients now, what waits for the disk, and what is worth keeping. Sync.

Bytes are forwarded as they came, comments and keep-alive lines included. An event that ends a stream, as far as is
known, is held with what follows until the entry is durable; where text follows after all, it is forwarded. The
recording leaves comments and keep-alive lines out.
"""

from dataclasses import dataclass, field

from kdproxy.core import sse
from kdproxy.core.models import Form
from kdproxy.providers.base import Broken, Criteria, Judge, Judgement, StreamJudge, answer_object, is_done
from kdproxy.providers.event import is_opening

GRACE_SECONDS = 1.0
"""How long a stream that has ended may stay open without an event: for `[DONE]`, and a clean end that leaves the
connection usable."""

USAGE_GRACE_SECONDS = 10.0
"""The same, while the usage that was asked for is still to come."""

TOO_LONG = Broken("it is longer than the limit for answers", may_be_good=True)


@dataclass(slots=True)
class StreamRecorder:
    """An SSE answer."""

    judge: StreamJudge
    limit_bytes: int
    events: int = 0
    """Events that have come since the answer ended: each may have another behind it."""
    _splitter: sse.Splitter = field(default_factory=sse.Splitter)
    _recorded: list[bytes] = field(default_factory=list)
    _held: list[bytes] = field(default_factory=list)
    _size: int = 0

    @property
    def form(self) -> Form:
        """How the sample is recorded."""
        return Form.SSE

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk; return what may go to clients now."""
        self._size += len(chunk)
        if self._size > self.limit_bytes:
            return self._pass_through(chunk)
        return b"".join(self._pass(piece) for piece in self._splitter.feed(chunk))

    def finish(self) -> Judgement:
        """Take the end of the stream: a clean one, or any other once it is settled."""
        if self._size > self.limit_bytes:
            return TOO_LONG
        rest = self._splitter.rest()
        if rest:
            piece = sse.piece(rest)
            if not self._is_ended or is_done(piece.data) or answer_object(piece.data) is not None:
                self._held.append(self._pass(piece))
            else:
                self._held.append(rest)  # half an event, cut after the answer had ended
        return self.judge.finish()

    @property
    def grace_seconds(self) -> float | None:
        """How long from the last event on no more has to come for the answer to be whole; None: it has not ended."""
        if not self._is_ended:
            return None
        return USAGE_GRACE_SECONDS if self.judge.awaits_usage and not self.judge.is_over else GRACE_SECONDS

    @property
    def is_over(self) -> bool:
        """Whether the stream's own last event has come."""
        return self._size <= self.limit_bytes and self.judge.is_over

    @property
    def has_held(self) -> bool:
        """Whether anything is held."""
        return bool(self._held)

    def release(self) -> bytes:
        """Return what is held: it may be text, and the end may be far."""
        held = b"".join(self._held)
        self._held.clear()
        return held

    @property
    def held(self) -> bytes:
        """What clients get once the entry is durable, or once it is known that it never will be."""
        return b"".join(self._held) + self._splitter.rest()

    @property
    def recording(self) -> bytes:
        """The stream without comments and keep-alive lines."""
        return b"".join(self._recorded)

    @property
    def _is_ended(self) -> bool:
        return self._size <= self.limit_bytes and (self.judge.is_over or self.judge.is_settled)

    def _pass(self, piece: sse.Piece) -> bytes:
        if piece.recorded:
            self._recorded.append(piece.recorded)
        if self.judge.take(piece):
            self._held.append(piece.raw)
            if piece.data and not is_opening(piece):
                self.events += 1
            return b""
        return self.release() + piece.raw if self._held else piece.raw

    def _pass_through(self, chunk: bytes) -> bytes:
        self._recorded.clear()
        held = self.held
        self._held.clear()
        return held + chunk


@dataclass(slots=True)
class BodyRecorder:
    """An answer that is not a stream of events. Binary ones go out live but for their last byte; others whole."""

    judge: Judge
    criteria: Criteria
    is_live: bool
    limit_bytes: int
    form: Form
    judged: Judgement | None = None
    """What it is worth, where that is known already."""
    _parts: list[bytes] = field(default_factory=list)
    _held: bytes = b""
    _size: int = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk; return what may go to clients now."""
        self._size += len(chunk)
        if self._size > self.limit_bytes:
            released = self._held if self.is_live else b"".join(self._parts)
            self._parts.clear()
            self._held, self.is_live = b"", True
            return released + chunk
        self._parts.append(chunk)
        if not self.is_live or not chunk:
            return b""
        released, self._held = self._held + chunk[:-1], chunk[-1:]
        return released

    def finish(self) -> Judgement:
        """Take the clean end of the body."""
        if self._size > self.limit_bytes:
            return TOO_LONG
        return self.judged or self.judge(self.recording, self.criteria)

    @property
    def held(self) -> bytes:
        """What clients get at the end."""
        return self._held if self.is_live else self.recording

    @property
    def recording(self) -> bytes:
        """The body; JSON without the blank lines that some providers send to keep the connection alive."""
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        return body.lstrip(b" \r\n\t") if self.form is Form.JSON else body


Recorder = StreamRecorder | BodyRecorder
"""Either kind."""
