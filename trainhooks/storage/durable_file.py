"""Write a large file and prove that it is on the medium: hashed, synced and read back while it is written.

Written data is synced in spans, its pages are dropped, and it is read again and compared with the bytes in memory, each
on its own thread, so that the end of the file waits only for the last span. Every byte is hashed once: to hash what is
read as well would take longer than to read it. Dropping the pages also leaves the page cache to the training.
"""

import ctypes
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import cast

from trainhooks.core.manifest import FileRecord
from trainhooks.errors import CheckpointInvalid
from trainhooks.storage import atomic

CHUNK_BYTES = 8 << 20
"""Written with one call, and hashed meanwhile. A file that fits into one needs no threads."""
_SPAN_BYTES = 64 << 20
"""Synced and read back at once. Each sync commits the file system's journal: few megabytes would cost more commits."""
_CHUNK_PIECES = 512
"""Below IOV_MAX (1,024 on Linux and macOS)."""
_PAGE_BYTES = 4096
"""A span that ends within a page leaves the page to the next span: half of it may not be written yet."""


def _find_memcmp() -> Callable[..., int] | None:
    """Return C's memcmp, 30 GB/s where the memory does it: that of memoryviews does 0.2, and holds the interpreter."""
    try:
        found = ctypes.CDLL(None).memcmp
    except (AttributeError, OSError, TypeError):  # Windows
        return None
    found.argtypes, found.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_int
    return cast("Callable[..., int]", found)


_memcmp = _find_memcmp()


def write(path: Path, pieces: Iterable[memoryview]) -> FileRecord:
    """Write bytes to a new file, sync it, read it back and return its size and SHA-256.

    Args:
        pieces: may be generated lazily. Their bytes must not change before this returns.

    Raises:
        CheckpointInvalid: what was read back is not what was written.
        OSError: the disk refused.
    """
    chunks = _chunks(pieces)
    with path.open("xb", buffering=0) as file, path.open("rb", buffering=0) as reader:
        first, second = next(chunks, []), next(chunks, None)
        writer = _Writer(file.fileno(), reader)
        if second is None:
            writer.write_small(first)
        else:
            writer.write_large(chain([first, second], chunks))
    if writer.is_damaged:
        raise CheckpointInvalid(
            f"{path.name} is damaged: what was read back does not match what was written.",
            hint="The disk or its controller returned wrong bytes: check it before it loses more data.",
        )
    return FileRecord(size_bytes=writer.size_bytes, sha256=writer.written.hexdigest())


class _Writer:
    """One file while it is written."""

    def __init__(self, descriptor: int, reader: FileIO) -> None:
        self._descriptor = descriptor
        self._reader = reader
        self.size_bytes = 0
        self.written = hashlib.sha256()
        """Of the bytes in memory."""
        self.is_damaged = False
        """Whether bytes came back otherwise, or not at all."""
        self._expected: deque[memoryview] = deque()
        """What is written and has not been read back."""
        self._read_bytes = 0
        self._synced_bytes = 0

    def write_small(self, chunk: list[memoryview]) -> None:
        self._expected += chunk
        self.size_bytes = write_whole(self._descriptor, chunk)
        update(self.written, chunk)
        self._finish()

    def write_large(self, chunks: Iterable[list[memoryview]]) -> None:
        with (
            ThreadPoolExecutor(1, thread_name_prefix="trainhooks-hash") as hasher,
            ThreadPoolExecutor(1, thread_name_prefix="trainhooks-sync") as syncer,
            ThreadPoolExecutor(1, thread_name_prefix="trainhooks-read") as reader,
        ):
            hashed: Future[None] | None = None
            read: list[Future[None]] = []
            begun = 0
            for chunk in chunks:
                if hashed is not None:
                    hashed.result()
                hashed = hasher.submit(update, self.written, chunk)
                self._expected += chunk
                self.size_bytes += write_whole(self._descriptor, chunk)
                if self.size_bytes - begun >= _SPAN_BYTES:
                    begun = self.size_bytes // _PAGE_BYTES * _PAGE_BYTES
                    read.append(reader.submit(self._read_back, syncer.submit(self._sync, begun), begun))
            for each in read if hashed is None else [hashed, *read]:
                each.result()
        self._finish()

    def _sync(self, end: int) -> bool:
        """Sync what is written and drop its pages up to `end`; False if the system cannot do that."""
        if not atomic.sync_data(self._descriptor):
            return False
        self._drop(end)
        return True

    def _read_back(self, synced: Future[bool], end: int) -> None:
        if synced.result():
            self._compare_to(end)

    def _finish(self) -> None:
        atomic.sync_file(self._descriptor)
        self._drop(self.size_bytes)
        self._compare_to(self.size_bytes)

    def _drop(self, end: int) -> None:
        start, self._synced_bytes = self._synced_bytes, end
        drop_pages(self._descriptor, start, end - start)
        read_ahead(self._descriptor, start, end - start)

    def _compare_to(self, end: int) -> None:
        start = self._read_bytes
        view = memoryview(bytearray(min(CHUNK_BYTES, end - start)))
        while self._read_bytes < end and not self.is_damaged:
            count = self._reader.readinto(view[: end - self._read_bytes])
            self.is_damaged = not count or not self._is_expected(view[:count])
            self._read_bytes += count
        drop_pages(self._descriptor, start, end - start)

    def _is_expected(self, read: memoryview) -> bool:
        while read:
            piece = self._expected.popleft()
            part, rest = piece[: read.nbytes], piece[read.nbytes :]
            if rest:
                self._expected.appendleft(rest)
            if not are_equal(read[: part.nbytes], part):
                return False
            read = read[part.nbytes :]
        return True


def _chunks(pieces: Iterable[memoryview]) -> Iterator[list[memoryview]]:
    """Split large pieces and group small ones."""
    chunk: list[memoryview] = []
    room = CHUNK_BYTES
    for piece in pieces:
        start = 0
        while start < piece.nbytes:
            part = piece[start : start + room]
            chunk.append(part)
            start += part.nbytes
            room -= part.nbytes
            if room == 0 or len(chunk) == _CHUNK_PIECES:
                yield chunk
                chunk, room = [], CHUNK_BYTES
    if chunk:
        yield chunk


def update(digest: "hashlib._Hash", chunk: list[memoryview]) -> None:
    """Hash the pieces of a chunk."""
    for piece in chunk:
        digest.update(piece)


def are_equal(one: memoryview, other: memoryview) -> bool:
    """Whether two pieces of one size hold the same bytes. Leaves the interpreter to other threads meanwhile."""
    if _memcmp is None or one.readonly or other.readonly or not one.nbytes:
        return bytes(one) == bytes(other)
    first, second = ctypes.c_char.from_buffer(one), ctypes.c_char.from_buffer(other)
    return int(_memcmp(ctypes.byref(first), ctypes.byref(second), one.nbytes)) == 0


def write_whole(descriptor: int, chunk: list[memoryview]) -> int:
    """Write the pieces of a chunk behind the file's end; returns how many bytes they are."""
    total = sum(piece.nbytes for piece in chunk)
    written = os.writev(descriptor, chunk)
    if written < total:  # a signal, or a disk that is nearly full
        rest = memoryview(b"".join(chunk))[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    return total


def digest(path: Path) -> FileRecord:
    """Read a file and return its size and SHA-256."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb", buffering=0) as file:
        view = memoryview(bytearray(CHUNK_BYTES))
        while count := file.readinto(view):
            digest.update(view[:count])
            size += count
        drop_pages(file.fileno())
    return FileRecord(size_bytes=size, sha256=digest.hexdigest())


def drop_pages(descriptor: int, start: int = 0, length: int = 0) -> None:
    """Drop pages from the page cache; a length of 0 means to the end."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_DONTNEED)


def read_ahead(descriptor: int, start: int, length: int) -> None:
    """Start reading the next span into the page cache."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_WILLNEED)
