"""Splits a stream of server-sent events into whole events (WHATWG HTML living standard, section 9.2.6).

Bytes are never changed: the pieces joined together are the stream, however the network split it.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

# An event ends at an empty line; a line ends at CRLF, LF or CR.
_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r)?")


class Piece(NamedTuple):
    """A run of whole lines up to and including an empty line: an event, or keep-alive bytes between events."""

    raw: bytes
    recorded: bytes
    """The raw bytes without comment lines; empty for a keep-alive."""
    event: str | None
    data: bytes
    """The event's data; empty if it has none."""
    bare: bytes = b""
    """The first line that is a JSON object and not a field: some servers send an error so. Clients ignore it."""


class Splitter:
    """Splits the chunks of a stream into whole pieces."""

    __slots__ = ("_buffer", "_scanned")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        """Take a chunk and yield the pieces that it completes."""
        buffer = self._buffer
        buffer += chunk
        start = 0
        position = self._scanned
        while (match := _EVENT_END.search(buffer, position)) is not None:
            end = match.end()
            if end == len(buffer) and buffer[end - 1] == 0x0D:
                break  # a CR at the end may be half of a CRLF
            yield piece(bytes(buffer[start:end]))
            start = position = end
        del buffer[:start]
        self._scanned = max(0, len(buffer) - 3)

    def rest(self) -> bytes:
        """Return and drop the bytes since the last whole piece."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._scanned = 0
        return rest

    @property
    def pending_bytes(self) -> int:
        """Number of buffered bytes of an unfinished event."""
        return len(self._buffer)


def piece(raw: bytes) -> Piece:
    """Parse one piece: its event name, its data, and the bytes worth recording."""
    if b"\r" not in raw and raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2:
        return Piece(raw, raw, None, raw[6:-2])  # one line of data, like nearly all events: 1 us instead of 4
    event: str | None = None
    data: list[bytes] = []
    recorded: list[bytes] = []
    bare = b""
    has_field = False
    for line in _LINE.findall(raw):
        if line.startswith(b":"):
            continue
        name, _, value = line.rstrip(b"\r\n").partition(b":")
        if name[:1] == b"\xef":
            name = name.removeprefix(_BYTE_ORDER_MARK)  # a stream may begin with one
        if not name:
            if has_field:
                # Without the comment between them, a CR and this LF would be one line break.
                is_split = line == b"\n" and recorded[-1].endswith(b"\r")
                recorded.append(b"\r\n" if is_split else line)
            continue
        recorded.append(line)
        has_field = True
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event = value.decode("utf-8", "replace")
        elif not bare and name.startswith(b"{"):
            bare = line.rstrip(b"\r\n")
    return Piece(raw, b"".join(recorded), event, b"\n".join(data), bare)


def pieces(stream: bytes) -> Iterator[Piece]:
    """Split a whole recording, including an unterminated last event."""
    if b"\r" in stream:
        splitter = Splitter()
        yield from splitter.feed(stream)
        rest = splitter.rest()
    else:  # nearly all recordings: without a search for each event
        *events, rest = stream.split(b"\n\n")
        for event in events:
            yield piece(event + b"\n\n")
    if rest:
        yield piece(rest)
