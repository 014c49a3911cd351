"""Files to warm from, as lines: plain, gzip, bzip2, xz or Zstandard, detected by their first bytes. Memory is bounded.

An array, or objects written over several lines, is read as if each value had its own line.

A file that unpacks to more than a hundred times its size is treated as a decompression bomb: reading stops there.
"""

import bz2
import importlib
import lzma
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from kdproxy.errors import KdproxyError
from kdproxy.ops.warm.values import BadShape, Splitter, is_spread

MAX_LINE_BYTES = 64 << 20
MAX_JOURNAL_LINE_BYTES = 1 << 30
"""The longest line that the journal accepts; the proxy's limits for questions and answers are lower."""
MAX_RATIO = 100
RATIO_FREE_BYTES = 1 << 20
"""Unpacked bytes that are always allowed: short files of equal lines are legitimate."""
_CHUNK_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\x00"
_XZ_MEMORY_BYTES = 256 << 20
_BOM = b"\xef\xbb\xbf"
_JOURNAL = b'{"v":'
_FOREIGN = (
    (b"\xff\xfe", "it is UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "it is UTF-16; save it as UTF-8"),
    (b"{\x00", "it is UTF-16; save it as UTF-8"),
    (b"\x00{", "it is UTF-16; save it as UTF-8"),
    (b"PAR1", "it is Parquet; write it as JSONL, such as with pandas: to_json(path, orient='records', lines=True)"),
    (b"ARROW1", "it is Arrow; write it as JSONL"),
    (b"PK\x03\x04", "it is a zip archive; unpack it"),
)
"""Formats that cannot be read, by their first bytes."""


_Unpack = Callable[[Iterator[bytes]], Iterator[bytes]]


class SourceBroken(Exception):
    """The rest of a file cannot be read."""


class SourceLine(NamedTuple):
    """One line of a file, without its line break; None if it is too long."""

    number: int
    text: bytes | None
    has_end: bool = True
    """Whether a line break follows. If the last line has none, the file may have been cut off there."""


class Source:
    """One open file. `read_bytes` is its progress."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read_bytes = 0

    def lines(self) -> Iterator[SourceLine]:
        """Yield the lines that are not blank.

        Raises:
            SourceBroken: damaged, cut off, a bomb, or of another format.
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
        unpack = _unpacker(head)
        chunks = self._read(file, head)
        if unpack is not None:
            chunks = self._unpacked(chunks, unpack)
        is_first = True
        for chunk in chunks:
            if is_first:
                _refuse_foreign(chunk)
                chunk = chunk.removeprefix(_BOM)
                is_first = False
            yield chunk

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
                raise SourceBroken(f"it unpacks to over {MAX_RATIO} times its size; unpack it yourself if you trust it")
            yield chunk


def size_of(path: Path) -> int:
    """Return a file's size, for the progress. Raises KdproxyError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.seek(0, 2) if file.seekable() else 0
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> KdproxyError:
    """Return the error for a file that cannot be read."""
    return KdproxyError(
        f"{path} cannot be read ({error.strerror}).",
        hint="Check its name and permissions. A proxy that owns the data directory reads the file as its own user.",
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
            if is_skipping or (len(text) > MAX_LINE_BYTES and len(text) > _most_bytes(text)):
                is_skipping = False
                yield SourceLine(number, None)
            elif text := _bare(text):
                yield SourceLine(number, text)
        if not is_skipping:
            pending += rest
            if len(pending) > _most_bytes(pending):
                pending.clear()
                is_skipping = True
    if is_skipping:
        yield SourceLine(number + 1, None, has_end=False)
    elif text := _bare(bytes(pending)):
        yield SourceLine(number + 1, text, has_end=False)


def _most_bytes(text: bytes | bytearray) -> int:
    return MAX_JOURNAL_LINE_BYTES if text.startswith(_JOURNAL) else MAX_LINE_BYTES


def _bare(text: bytes) -> bytes:
    """Strip blanks, and the byte order mark of a file that was appended to another."""
    return text.removeprefix(_BOM).strip(b" \t\r")


def _refuse_foreign(head: bytes) -> None:
    for start, reason in _FOREIGN:
        if head.startswith(start):
            raise SourceBroken(reason)


def _unpacker(head: bytes) -> _Unpack | None:
    if head.startswith(_GZIP):
        return _gunzip
    if head.startswith(_ZSTD):
        zstd = _zstd()
        # The library bounds the windows of frames (RFC 8878 section 3.1) at 128 MiB.
        return lambda packed: _unpack(packed, "Zstandard", zstd.ZstdDecompressor, zstd.ZstdError)
    if head.startswith(_BZIP2):
        return lambda packed: _unpack(packed, "bzip2", bz2.BZ2Decompressor, OSError)
    if head.startswith(_XZ):
        return lambda packed: _unpack(packed, "xz", _new_xz, lzma.LZMAError)
    return None


def _new_xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)


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
                raise SourceBroken("it is damaged: the gzip data is inconsistent") from error
            if chunk:
                yield chunk
            data = stream.unused_data if stream.eof else stream.unconsumed_tail
            if stream.eof:
                stream = None
    if stream is not None:
        raise SourceBroken("it is cut off: the gzip data has no end")


def _unpack(
    packed: Iterator[bytes], name: str, make: Callable[[], Any], error_type: type[Exception]
) -> Iterator[bytes]:
    """Unpack frames one after the other; zeros after the last are padding."""
    stream = None
    for data in packed:
        while data or (stream is not None and not stream.needs_input):
            if stream is None:
                data = data.lstrip(b"\0")
                if not data:
                    break
                stream = make()
            try:
                chunk = stream.decompress(data, _CHUNK_BYTES)
            except error_type as error:
                raise SourceBroken(f"it is damaged: the {name} data is inconsistent") from error
            if chunk:
                yield chunk
            data = stream.unused_data if stream.eof else b""
            if stream.eof:
                stream = None
    if stream is not None:
        raise SourceBroken(f"it is cut off: the {name} data has no end")


def _zstd() -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise KdproxyError(
        "Zstandard files cannot be read here.",
        hint="pip install backports.zstd, or unpack the file first.",
        code="zstd_missing",
        http_status=400,
    )
