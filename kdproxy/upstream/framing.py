"""Parses HTTP/1.1 responses: where a head ends, what it says, and where its body ends. Sync, no I/O.

Rule: a response is accepted if RFC 9112 defines where its body ends, however unusual it looks (two equal
Content-Length, one beside chunked, a space before a colon, a bare LF). If the end is ambiguous, BadFraming is raised;
nothing is guessed. After an unusual response the connection is not used again.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from multidict import CIMultiDict

MAX_HEAD_BYTES = 1 << 20
"""Maximum of a head, and of the trailers: some gateways put whole policies into headers."""

_MAX_SIZE_LINE_BYTES = 4_096
_MAX_LENGTH_DIGITS = 15

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_BLANK = " \t"
_STATUS_LINE = re.compile(r"HTTP/1\.([01])[ \t]+([1-9][0-9]{2})(?:[ \t].*)?")
_FIELD = re.compile(r"(?m)^([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[ \t]*+(\S(?:.*\S)?)?[ \t]*+$")
"""A header line as nearly all are: all of a head take a third of the time that they take one by one.

The quantifiers are possessive: else a line of blanks before other white space takes the square of its length, 1.7 s for
16 KB.
"""
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")


class BadFraming(Exception):
    """The response is not HTTP/1.1, or the end of its body is ambiguous. The text says why, and quotes nothing."""


class SpeaksTls(BadFraming):
    """The server sent a TLS alert (RFC 8446 section 6): it could not read the request, which came without TLS."""


class End(Enum):
    """Whether and how a body has ended."""

    OPEN = "open"
    WHOLE = "whole"
    UNMARKED = "unmarked"
    """It ended with the connection: a server that crashed looks the same (RFC 9112 section 8)."""


class Body(Protocol):
    """Finds the end of a body."""

    end: End

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take received bytes; return those of the body, and those after its end. Raises BadFraming."""

    def feed_eof(self) -> None:
        """Take the clean end of the connection. The body stays OPEN if it was cut."""


@dataclass(slots=True)
class LengthBody:
    """A body of a given length."""

    left: int
    end: End = End.OPEN

    def __post_init__(self) -> None:
        if not self.left:
            self.end = End.WHOLE

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take received bytes."""
        size = len(data)
        if size < self.left:
            self.left -= size
            return data, b""
        self.end = End.WHOLE
        body, rest = (data, b"") if size == self.left else (data[: self.left], data[self.left :])
        self.left = 0
        return body, rest

    def feed_eof(self) -> None:
        """Do nothing: a body that is not whole was cut."""


@dataclass(slots=True)
class CloseBody:
    """A body that ends with the connection."""

    end: End = End.OPEN

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take received bytes."""
        return data, b""

    def feed_eof(self) -> None:
        """Its end."""
        self.end = End.UNMARKED


class _Part(Enum):
    SIZE = "size"
    DATA = "data"
    DATA_END = "data end"
    TRAILER = "trailer"


class ChunkedBody:
    """The chunked coding (RFC 9112 section 7.1). Trailers and extensions are dropped."""

    def __init__(self) -> None:
        self.end = End.OPEN
        self._part = _Part.SIZE
        self._left = 0
        self._rest = b""
        self._trailer_bytes = 0
        self._has_data = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take received bytes."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        found: list[bytes] = []
        at, size = 0, len(data)
        while at < size:
            match self._part:
                case _Part.DATA:
                    piece = data[at : at + self._left]
                    found.append(piece)
                    at += len(piece)
                    self._left -= len(piece)
                    if not self._left:
                        self._part = _Part.DATA_END
                    continue
                case _Part.DATA_END:
                    if data[at] == 0x0D and at + 1 == size:
                        break
                    at += 2 if data[at] == 0x0D else 1
                    if data[at - 1] != 0x0A:
                        raise BadFraming("a chunk is longer than its size")
                    self._part = _Part.SIZE
                    continue
                case _:
                    end = data.find(b"\n", at)
                    if end < 0:
                        break
                    line = data[at:end].removesuffix(b"\r")
                    at = end + 1
            if self._part is _Part.SIZE:
                self._begin_chunk(line)
            elif not line:
                self.end = End.WHOLE
                return b"".join(found), data[at:]
            else:
                self._count_trailer(len(line))
        self._rest = data[at:]
        if self._part is _Part.SIZE and len(self._rest) > _MAX_SIZE_LINE_BYTES:
            raise BadFraming("a chunk has no size")
        if self._part is _Part.TRAILER:
            self._count_trailer(0)
        return found[0] if len(found) == 1 else b"".join(found), b""

    def feed_eof(self) -> None:
        """After the last chunk the body is whole; between two chunks its end is unmarked; elsewhere it was cut."""
        if self._part is _Part.TRAILER:
            self.end = End.WHOLE
        elif self._has_data and (
            self._part is _Part.DATA_END or (self._part is _Part.SIZE and not self._rest.strip(b"0\r\n"))
        ):
            self.end = End.UNMARKED

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise BadFraming("a chunk has no size")
        self._left = int(match[1], 16)
        self._part = _Part.DATA if self._left else _Part.TRAILER
        self._has_data = self._has_data or self._left > 0

    def _count_trailer(self, size: int) -> None:
        self._trailer_bytes += size
        if self._trailer_bytes + len(self._rest) > MAX_HEAD_BYTES:
            raise BadFraming(f"its trailers are longer than {MAX_HEAD_BYTES} bytes")


@dataclass(slots=True)
class Head:
    """A response without its body."""

    status: int
    headers: "CIMultiDict[str]"
    body: Body
    length: int | None
    """Content-Length, if it applies; also in an answer to HEAD."""
    keeps_alive: bool
    """Whether the connection may be used again, once the body is whole."""


def split_head(data: bytes) -> tuple[bytes, bytes] | None:
    """Return a head and the bytes after it; None if its end has not come. Raises BadFraming."""
    if data[:1] in b"\r\n":
        data = data.lstrip(b"\r\n")  # RFC 9112 section 2.2; some servers also put line breaks after a body
    match = _HEAD_END.search(data)
    if match is None:
        if len(data) > MAX_HEAD_BYTES:
            raise BadFraming(f"its headers are longer than {MAX_HEAD_BYTES} bytes")
        if data[:2] == b"\x15\x03":
            raise SpeaksTls("it speaks TLS")
        if not b"HTTP/1.".startswith(data[:7]):
            raise BadFraming("it does not speak HTTP/1.1")
        return None
    return data[: match.start()], data[match.end() :]


def _name(raw: str) -> str:
    found = raw.rstrip(" \t")  # RFC 9112 section 5.1: a proxy removes it
    if _NAME.fullmatch(found) is None:
        raise BadFraming("one of its header lines has no name")
    return found


def parse_head(raw: bytes, *, method: str) -> Head:
    """Read a head as `split_head` returns it.

    Raises:
        BadFraming: it is not a valid head, or the end of its body is ambiguous (RFC 9112 section 6.3).
    """
    # Bytes that are not UTF-8 become lone surrogates, and are forwarded as they came.
    text = raw.replace(b"\r\n", b"\n").decode("utf-8", "surrogateescape")
    if "\r" in text or "\0" in text:
        raise BadFraming("one of its header lines holds a control character")
    first, _, rest = text.partition("\n")
    match = _STATUS_LINE.fullmatch(first)
    if match is None:
        raise BadFraming("it does not speak HTTP/1.1")
    pairs: list[tuple[str, str]] = _FIELD.findall(rest)
    if rest and len(pairs) != rest.count("\n") + 1:
        pairs = _read_lines(rest.split("\n"))
    version, code = match.groups()
    status = int(code)
    headers = CIMultiDict(pairs)
    body, length, is_plain = _body(status, headers, method)
    keeps_alive = is_plain and version == "1"
    if keeps_alive and "Connection" in headers:
        keeps_alive = "close" not in _list(headers, "Connection")
    return Head(status, headers, body, length, keeps_alive)


def _read_lines(lines: list[str]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for line in lines:
        if line[0] in " \t":
            if not pairs:
                raise BadFraming("one of its header lines has no name")
            name, value = pairs[-1]  # RFC 9112 section 5.2: a folded line continues the line before
            pairs[-1] = name, f"{value} {line.strip(_BLANK)}".strip(_BLANK)
            continue
        raw_name, colon, value = line.partition(":")
        if not colon:
            raise BadFraming("one of its header lines has no colon")
        pairs.append((_name(raw_name), value.strip(_BLANK)))
    return pairs


def _list(headers: "CIMultiDict[str]", name: str) -> list[str]:
    return [part.strip().lower() for value in headers.getall(name) for part in value.split(",")]


def _body(status: int, headers: "CIMultiDict[str]", method: str) -> tuple[Body, int | None, bool]:
    """Return the body's parser, its length if known, and whether the head is unambiguous and usual."""
    codings: list[str] = []
    if "Transfer-Encoding" in headers:
        codings = [coding for coding in _list(headers, "Transfer-Encoding") if coding not in ("", "identity")]
    lengths = _list(headers, "Content-Length") if "Content-Length" in headers else []
    length = None if codings or not lengths else _length(lengths)
    if method == "HEAD" or status < 200 or status in (204, 304) or (method == "CONNECT" and status < 300):
        return LengthBody(0), length, True
    if codings:
        # A repeated "chunked" counts once: it must not be applied twice (section 7.1).
        if set(codings) != {"chunked"}:
            raise BadFraming("its transfer coding is not just chunked")
        # Content-Length is ignored beside chunked.
        return ChunkedBody(), None, len(codings) == 1 and not lengths
    if length is None:
        return CloseBody(), None, False
    return LengthBody(length), length, len(lengths) == 1


def _length(lengths: list[str]) -> int:
    if len(lengths) > 1 and len(set(lengths)) > 1:
        raise BadFraming("it has two different Content-Length values")
    digits = lengths[0]
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _MAX_LENGTH_DIGITS:
        raise BadFraming("its Content-Length is not a number")
    return int(digits)
