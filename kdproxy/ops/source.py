"""Files to warm from, as lines: plain, gzip or Zstandard, told by their first bytes. Memory is bounded by all means.

An array, or objects written over many lines, comes as if each value had a line of its own.

A file that unpacks to more than a hundred times its size is taken for a bomb and left at that point.
"""

import importlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from kdproxy.errors import KdproxyError
from kdproxy.ops.values import BadShape, Splitter, is_spread

MAX_LINE_BYTES = 64 << 20
MAX_RATIO = 100
RATIO_FREE_BYTES = 1 << 20
"""So much may unpack from however little: short files of equal lines are honest."""
_CHUNK_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


_Unpack = Callable[[Iterator[bytes]], Iterator[bytes]]


class SourceBroken(Exception):
    """The rest of a file cannot be read."""


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One line of a file, without its line break; None where it is too long to be held."""

    number: int
    text: bytes | None


class Source:
    """One open file. `read_bytes` tells how far it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read_bytes = 0

    def lines(self) -> Iterator[SourceLine]:
        """Yield the lines that are not blank.

        Raises:
            SourceBroken: damaged, cut off, a bomb, or not text in UTF-8.
            KdproxyError: it cannot be opened, or Zstandard is not installed.
        """
        try:
            with self.path.open("rb") as file:
                chunks = self._chunks(file)
                head = next(chunks, b"")
                split = _split_values if is_spread(head) else _split
                yield from split(chain([head], chunks))
        except OSError as error:
            raise unreadable(self.path, error) from error

    def _chunks(self, file: BinaryIO) -> Iterator[bytes]:
        head = file.read(_CHUNK_BYTES)
        if head.startswith(_UTF16):
            raise SourceBroken("it is UTF-16; save it as UTF-8")
        unpack = _unpacker(head)
        if unpack is None:
            yield from self._read(file, head.removeprefix(_BOM))
            return
        is_first = True
        for chunk in self._unpacked(self._read(file, head), unpack):
            yield chunk.removeprefix(_BOM) if is_first else chunk
            is_first = False

    def _read(self, file: BinaryIO, chunk: bytes) -> Iterator[bytes]:
        while chunk:
            self.read_bytes += len(chunk)
            yield chunk
            chunk = file.read(_CHUNK_BYTES)

    def _unpacked(self, packed: Iterator[bytes], unpack: _Unpack) -> Iterator[bytes]:
        size = 0
        for chunk in unpack(packed):
            size += len(chunk)
            if size > RATIO_FREE_BYTES + MAX_RATIO * self.read_bytes:
                raise SourceBroken(f"it unpacks to over {MAX_RATIO} times its size; unpack it yourself if it is honest")
            yield chunk


def size_of(path: Path) -> int:
    """Return a file's size, for the progress. Raises KdproxyError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.seek(0, 2) if file.seekable() else 0
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> KdproxyError:
    """Say that a file cannot be read."""
    return KdproxyError(
        f"{path} cannot be read ({error.strerror}).",
        hint="Check the name and its permissions; a proxy that owns the data directory reads it itself.",
        code="file_unreadable",
        http_status=400,
    )


def _split_values(chunks: Iterator[bytes]) -> Iterator[SourceLine]:
    splitter = Splitter(MAX_LINE_BYTES)
    try:
        for chunk in chunks:
            for start in range(0, len(chunk), _PIECE_BYTES):
                for number, text in splitter.feed(chunk[start : start + _PIECE_BYTES]):
                    yield SourceLine(number, text)
        splitter.finish()
    except BadShape as error:
        raise SourceBroken(str(error)) from error


def _split(chunks: Iterator[bytes]) -> Iterator[SourceLine]:
    number = 0
    pending = bytearray()
    is_skipping = False
    for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for text in whole:
            number += 1
            if pending:
                pending += text
                text = bytes(pending)
                pending.clear()
            if is_skipping or len(text) > MAX_LINE_BYTES:
                is_skipping = False
                yield SourceLine(number, None)
            elif text := text.strip(b" \t\r"):
                yield SourceLine(number, text)
        if not is_skipping:
            pending += rest
            if len(pending) > MAX_LINE_BYTES:
                pending.clear()
                is_skipping = True
    if is_skipping:
        yield SourceLine(number + 1, None)
    elif text := bytes(pending).strip(b" \t\r"):
        yield SourceLine(number + 1, text)


def _unpacker(head: bytes) -> _Unpack | None:
    if head.startswith(_GZIP):
        return _gunzip
    if head.startswith(_ZSTD):
        zstd = _zstd()
        return lambda packed: _unzstd(packed, zstd)
    return None


def _gunzip(packed: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack members one after the other (RFC 1952 section 2.2); zeros after the last are padding."""
    stream = None
    for data in packed:
        while data:
            if stream is None:
                data = data.lstrip(b"\0")
                if not data:
                    break
                stream = zlib.decompressobj(wbits=31)
            try:
                chunk = stream.decompress(data, _CHUNK_BYTES)
            except zlib.error as error:
                raise SourceBroken("it is damaged: the gzip data does not fit together") from error
            if chunk:
                yield chunk
            data = stream.unused_data if stream.eof else stream.unconsumed_tail
            if stream.eof:
                stream = None
    if stream is not None:
        raise SourceBroken("it is cut off: the gzip data has no end")


class _Zstd(Protocol):
    ZstdError: type[Exception]
    ZstdDecompressor: Callable[[], Any]


def _unzstd(packed: Iterator[bytes], zstd: _Zstd) -> Iterator[bytes]:
    """Unpack frames one after the other (RFC 8878 section 3.1); the library bounds their windows at 128 MiB."""
    stream = None
    for data in packed:
        while data or (stream is not None and not stream.needs_input):
            stream = stream or zstd.ZstdDecompressor()
            try:
                chunk = stream.decompress(data, _CHUNK_BYTES)
            except zstd.ZstdError as error:
                raise SourceBroken("it is damaged: the Zstandard data does not fit together") from error
            if chunk:
                yield chunk
            data = stream.unused_data if stream.eof else b""
            if stream.eof:
                stream = None
    if stream is not None:
        raise SourceBroken("it is cut off: the Zstandard data has no end")


def _zstd() -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise KdproxyError(
        "Zstandard files cannot be read here.",
        hint="pip install kdproxy[zstd], or unpack the file first.",
        code="zstd_missing",
        http_status=400,
    )
