"""Write one safetensors file straight from memory, hashed on the way. The safetensors library reads it.

The format is 8 bytes of header length, a JSON header, and the tensors' bytes (README of huggingface/safetensors,
section Format, read 2026-11). Its own writer wants every tensor as a `bytes` copy and keeps no hash; gigabytes are
written here without a copy. Hashing, writing and reading let other threads run.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from trainhooks.core.manifest import FileRecord
from trainhooks.storage import atomic

SUFFIX = ".safetensors"
METADATA = "__metadata__"
"""The one name that the format keeps for itself."""
_CHUNK_BYTES = 8 << 20
_CHUNK_PIECES = 512
"""Below IOV_MAX (1,024 on Linux and macOS)."""
_ALIGNMENT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """One tensor's bytes, contiguous, little-endian, row-major."""

    name: str
    dtype: str
    """As safetensors spells it: F32, BF16, I64, ..."""
    shape: tuple[int, ...]
    data: memoryview
    """Flat bytes."""


def write(path: Path, blobs: Iterable[Blob], *, metadata: Mapping[str, str] | None = None) -> FileRecord:
    """Write and sync a new file; returns its size and SHA-256."""
    blobs = list(blobs)
    header: dict[str, object] = {METADATA: dict(metadata)} if metadata else {}
    end = 0
    for blob in blobs:
        begin, end = end, end + blob.data.nbytes
        header[blob.name] = {"dtype": blob.dtype, "shape": list(blob.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return write_pieces(path, [memoryview(len(text).to_bytes(8, "little") + text), *(blob.data for blob in blobs)])


def write_pieces(path: Path, pieces: Iterable[memoryview]) -> FileRecord:
    """Write bytes to a new file, sync it, and return its size and SHA-256.

    One thread hashes a chunk while another writes it. The pages are let go of once they are on the medium, so that a
    read-back reads the medium and the training keeps its page cache.
    """
    digest = hashlib.sha256()
    size = 0
    with path.open("xb", buffering=0) as file, ThreadPoolExecutor(1, thread_name_prefix="trainhooks-hash") as hasher:
        hashed = None
        for chunk in _chunks(pieces):
            if hashed is not None:
                hashed.result()
            hashed = hasher.submit(_update, digest, chunk)
            size += _write_whole(file.fileno(), chunk)
        if hashed is not None:
            hashed.result()
        atomic.sync_file(file.fileno())
        _drop_pages(file.fileno())
    return FileRecord(size_bytes=size, sha256=digest.hexdigest())


def _chunks(pieces: Iterable[memoryview]) -> Iterator[list[memoryview]]:
    """Cut what is large and gather what is small."""
    chunk: list[memoryview] = []
    room = _CHUNK_BYTES
    for piece in pieces:
        start = 0
        while start < piece.nbytes:
            part = piece[start : start + room]
            chunk.append(part)
            start += part.nbytes
            room -= part.nbytes
            if room == 0 or len(chunk) == _CHUNK_PIECES:
                yield chunk
                chunk, room = [], _CHUNK_BYTES
    if chunk:
        yield chunk


def _update(digest: "hashlib._Hash", chunk: list[memoryview]) -> None:
    for piece in chunk:
        digest.update(piece)


def _write_whole(descriptor: int, chunk: list[memoryview]) -> int:
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
        view = memoryview(bytearray(_CHUNK_BYTES))
        while count := file.readinto(view):
            digest.update(view[:count])
            size += count
        _drop_pages(file.fileno())
    return FileRecord(size_bytes=size, sha256=digest.hexdigest())


def _drop_pages(descriptor: int) -> None:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
