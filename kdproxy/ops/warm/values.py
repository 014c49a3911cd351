"""Splits JSON values that are not one per line: members of an array, or consecutive objects over several lines.

Only brackets and strings are parsed, so that memory holds one value at a time; the values are parsed elsewhere.
"""

import re
from collections.abc import Iterator

import orjson

_MARK = re.compile(rb'[{}\[\],"\n]|\\.?', re.DOTALL)
_BLANK = b" \t\r\n"
_ARRAY = re.compile(rb"\s*\[\s*(?:\{|$)")


class BadShape(Exception):
    """The text is neither an array nor a sequence of values."""


def is_spread(head: bytes) -> bool:
    """Whether a file with this beginning is one array of objects, or objects whose first line is only a bracket."""
    line, _, rest = head.lstrip(_BLANK).partition(b"\n")
    line = line.strip(_BLANK)
    if line == b"{" or not _ARRAY.match(head):
        return line == b"{"
    if not rest.strip(_BLANK):
        return True
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return True
    return False  # a file of lines, of which the first is an array


class Splitter:
    """Takes text in pieces; yields values with the number of their first line. Blank values are left out."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._pending = bytearray()
        self._at = 0
        """How far `_pending` has been scanned."""
        self._line = 1
        self._starts_at: int | None = None
        """Line in which the pending value begins."""
        self._depth = 0
        self._base: int | None = None
        """Depth of the values: 1 in an array, 0 in a sequence; None: not known yet."""
        self._is_text = False
        self._is_over = False
        self._is_too_long = False

    def feed(self, text: bytes) -> Iterator[tuple[int, bytes | None]]:
        """Add a piece; yield the values that end in it, None for a value that is too long. Raises BadShape."""
        self._pending += text
        while (mark := _MARK.search(self._pending, self._at)) is not None:
            found = mark[0]
            if found == b"\\":
                break  # the escaped character comes with the next piece
            self._note_start(mark.start())
            self._at = mark.end()
            if found == b"\n":
                self._line += 1
            elif self._is_text:
                self._is_text = found != b'"'
            elif found == b'"':
                self._is_text = True
            elif (value := self._bracket(found, mark)) is not None:
                yield value
        else:
            self._note_start(len(self._pending))
            self._at = len(self._pending)
        if self._is_over and self._pending.strip(_BLANK):
            raise BadShape("text follows the end of the array; does the file have one array per line?")
        if len(self._pending) > self._limit_bytes:
            self._is_too_long = True
            del self._pending[: self._at]
            self._at = 0

    def finish(self) -> None:
        """Finish. Raises BadShape if the text is cut off."""
        if self._base == 1 and not self._is_over:
            raise BadShape("it is cut off: the array has no end")
        if self._pending.strip(_BLANK) or self._is_too_long:
            raise BadShape("it is cut off: the last object has no end")

    def _note_start(self, end: int) -> None:
        if self._starts_at is None and self._pending[self._at : end].strip(_BLANK):
            self._starts_at = self._line

    def _bracket(self, found: bytes, mark: re.Match[bytes]) -> tuple[int, bytes | None] | None:
        if self._base is None:
            self._base = 1 if found == b"[" else 0
            if self._base:
                self._depth = 1
                self._forget(mark.end())
                return None
        if found in b"{[":
            self._starts_at = self._starts_at or self._line
            self._depth += 1
        elif found in b"}]":
            self._depth -= 1
            if self._depth < self._base:
                self._is_over = True
                return self._take(mark.start(), mark.end())
            if self._depth == self._base == 0:
                return self._take(mark.end(), mark.end())
        elif self._depth == self._base:
            return self._take(mark.start(), mark.end())
        return None

    def _take(self, end: int, rest: int) -> tuple[int, bytes | None] | None:
        value = bytes(self._pending[:end]).strip(_BLANK)
        number, is_too_long = self._starts_at or self._line, self._is_too_long
        self._forget(rest)
        if is_too_long:
            return number, None
        # Between tokens a line break is a blank; within them JSON has none.
        return (number, value.replace(b"\n", b" ")) if value else None

    def _forget(self, count: int) -> None:
        del self._pending[:count]
        self._at = 0
        self._starts_at = None
        self._is_too_long = False
