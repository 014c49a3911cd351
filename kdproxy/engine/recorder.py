"""Watches an answer pass: what may go to clients now, what waits for the disk, and what is worth keeping. Sync.

Bytes go on as they came, comments and keep-alive lines included; from the event that ends a stream on, they are held
until the entry is durable. The recording leaves comments and keep-alive lines out.
"""

from dataclasses import dataclass, field

from kdproxy.core import sse
from kdproxy.core.models import Form
from kdproxy.providers.base import Broken, Endpoint, Judgement, StreamJudge


@dataclass(slots=True)
class StreamRecorder:
    """An SSE answer."""

    endpoint: Endpoint
    choices: int
    limit_bytes: int
    _splitter: sse.Splitter = field(default_factory=sse.Splitter)
    _recorded: list[bytes] = field(default_factory=list)
    _held: list[bytes] = field(default_factory=list)
    _size: int = 0
    _judge: StreamJudge = field(init=False)

    def __post_init__(self) -> None:
        self._judge = self.endpoint.judge_stream(self.choices)

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
        """Take the clean end of the stream."""
        if self._size > self.limit_bytes:
            return Broken("longer than the limit for answers")
        rest = self._splitter.rest()
        if rest:
            self._held.append(self._pass(sse.piece(rest)))
        return self._judge.finish()

    @property
    def is_over(self) -> bool:
        """Whether the stream's own last event has come."""
        return self._size <= self.limit_bytes and self._judge.is_over

    @property
    def held(self) -> bytes:
        """What clients get once the entry is durable, or once it is known that it never will be."""
        return b"".join(self._held) + self._splitter.rest()

    @property
    def recording(self) -> bytes:
        """The stream without comments and keep-alive lines."""
        return b"".join(self._recorded)

    def _pass(self, piece: sse.Piece) -> bytes:
        if piece.recorded:
            self._recorded.append(piece.recorded)
        is_last = self._judge.take(piece)
        if is_last or self._held:
            self._held.append(piece.raw)
            return b""
        return piece.raw

    def _pass_through(self, chunk: bytes) -> bytes:
        self._recorded.clear()
        held = self.held
        self._held.clear()
        return held + chunk


@dataclass(slots=True)
class BodyRecorder:
    """An answer that is not a stream of events. Binary ones go on live but for their last byte; others whole."""

    endpoint: Endpoint
    is_live: bool
    limit_bytes: int
    form: Form
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
            return Broken("longer than the limit for answers")
        return self.endpoint.judge(self.recording)

    @property
    def is_over(self) -> bool:
        """Never: only its end says where a body ends."""
        return False

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
